// The Inter-M transformer as a CPU runs it: weights packed for the vector kernels, one shape's buffers, and the phases between two
// waits of its threads. Plain structs, so that the file of vector code needs nothing from the standard library.
#pragma once
#include <cstddef>
#include <cstdint>

namespace rti::cpu {

constexpr int kLanes = 16;           // float32 values of a vector
constexpr int kPanel = 64;           // columns that a tile of a product has
constexpr int kTileRows = 6;         // rows of a tile: 6 x 4 sums fill the vector registers but for what feeds them
constexpr int kChunk = 48;           // rows that pass through a run of layers together; their values stay in the second-level cache
constexpr int kBlockModulations = 20;

enum class Weights { kInt8, kBfloat16 };

// W [outputs, inputs] in panels of 64 outputs, each [inputs / g, 64, g] with the g = 4 (int8) or 2 (bfloat16) values that one
// instruction multiplies beside each other. int8 weights have 128 added: the instruction takes one operand without sign.
struct Linear {
  int inputs = 0, outputs = 0;
  const uint8_t* packed = nullptr;
  const float* scale = nullptr;      // of each output; null for bfloat16
  const float* bias = nullptr;
};

struct Layer {
  Linear qkv, out, up_combined, down_combined;
  Linear spatial_qkv, spatial_out, temporal_qkv, temporal_out;
  Linear cross_query, cross_memory, cross_out, up_split, down_split;
};

// Keys and values of groups of tokens that attend to each other, bfloat16: for each group and head the keys in panels
// [head / 2, 64 keys, 2] and the values as [keys / 2, head, 2]. Past the last key stand zeros.
struct Memory {
  uint16_t* keys = nullptr;
  uint16_t* values = nullptr;
  int count = 0;                     // keys of a group
  size_t keys_stride = 0, values_stride = 0;
};

// One thread's room for a chunk of rows.
struct Scratch {
  uint8_t* rows = nullptr;           // what a product reads: int8 or bfloat16 [kChunk, inputs]
  float* row_scale = nullptr;        // [kChunk]
  int32_t* row_offset = nullptr;     // [kChunk]: what the 128 added to the weights adds to each sum
  float* attended = nullptr;         // [kChunk, width]
  float* hidden = nullptr;           // [kChunk, ff]
  float* line = nullptr;             // [max(width, ff)]
  uint16_t* query = nullptr;         // bfloat16 [kChunk, width]
  float* scores = nullptr;           // [kTileRows, keys]
  uint16_t* weights = nullptr;       // bfloat16 [kTileRows, keys]
};

// One pass of the transformer: what is given, what it works in, what it answers.
struct Pass {
  Weights kind = Weights::kInt8;
  int width = 0, heads = 0, ff = 0, codes = 0, parts = 0, layers = 0;
  const Layer* layer = nullptr;
  Linear dense, output;
  const float* table = nullptr;      // [codes + 3, width]: a token's embedding after the input layer
  int batch = 0, columns = 0;
  const int64_t* tokens = nullptr;   // [batch, 2, parts, columns]
  const float* modulations = nullptr;  // [batch, layers * 20 + 2, width]
  const float* positions = nullptr;  // [parts, columns, width]
  const float* placement = nullptr;  // [batch, 2, columns, width] or null
  float* x = nullptr;                // [batch, 2 * parts * columns + 1, width], the separator last
  uint16_t* query = nullptr;         // bfloat16, of x's tokens
  uint16_t* spatial = nullptr;       // bfloat16 [batch * 2 * parts * columns, 3 * width]
  uint16_t* temporal_query = nullptr;
  Memory self, temporal, cross;
  int first_person = 0, people = 2, last = 0;  // whose logits are wanted, and of how many columns at the end
  float* logits = nullptr;           // [batch, people, parts, last, codes]

  int tokens_each() const { return parts * columns; }
  int length() const { return 2 * tokens_each() + 1; }
  int head() const { return width / heads; }
  const float* modulation(int row, int block, int which) const {
    return modulations + (static_cast<size_t>(row) * (layers * kBlockModulations + 2) + block * kBlockModulations + which) * width;
  }
};

// A chunk of rows of sample ``row``. In the last `split` they count the tokens whose logits are wanted.
struct Chunk {
  int row = 0, first = 0, count = 0;
};

// Phases, each over chunks that do not depend on each other. ``begin``: embedding and the first block's queries, keys and values.
// ``combined``: attention over all tokens, feed-forward, and what the split half needs of each token. ``split``: both factorised
// attentions, the look at the other person, feed-forward, and the next block's queries, keys and values, or the logits.
void begin(const Pass& pass, const Chunk& chunk, Scratch& scratch);
void combined(const Pass& pass, int block, const Chunk& chunk, Scratch& scratch);
void split(const Pass& pass, int block, const Chunk& chunk, Scratch& scratch);
// The separator passes the split half untouched.
void separator(const Pass& pass, int block, int row, Scratch& scratch);


}  // namespace rti::cpu
