// The Inter-M transformer as a CPU runs it: weights packed for the vector kernels, one shape's buffers, and the phases between two
// waits of its threads. Plain structs, so that the files of vector code need nothing from the standard library.
#pragma once
#include <cstddef>
#include <cstdint>

namespace rti::cpu {

constexpr int kLanes = 16;           // float32 values of a vector
constexpr int kWord = 4;             // bytes that an instruction takes of a row for each of its sums
constexpr int kTileRows = 6;         // rows of a product's tile
constexpr int kChunk = 48;           // rows that pass through a run of layers together; their values stay in the second-level cache
constexpr int kBlockModulations = 20;

enum class Weights { kInt8, kBfloat16, kFloat32 };

// How a product's second operand stands in memory: in panels of so many columns, the ``group`` values that one instruction
// multiplies beside each other. 6 rows by a panel are as many sums as the vector registers hold beside what feeds them: 24 of 32
// with AVX-512, 12 of 16 with AVX2.
struct Layout {
  int panel, group;
};

constexpr Layout layout(Weights kind) {
  return kind == Weights::kInt8 ? Layout{64, 4} : kind == Weights::kBfloat16 ? Layout{64, 2} : Layout{16, 1};
}

// In what attention multiplies: float32 beside float32 weights, else bfloat16.
constexpr Layout mixed_layout(Weights kind) { return layout(kind == Weights::kFloat32 ? kind : Weights::kBfloat16); }

// W [outputs, inputs] in panels of outputs, each [inputs / group, panel, group]. int8 weights have 128 added: the instruction takes
// one operand without sign.
struct Linear {
  int inputs = 0, outputs = 0;
  const uint8_t* packed = nullptr;
  const float* scale = nullptr;      // of each output of int8 weights
  const float* bias = nullptr;
};

struct Layer {
  Linear qkv, out, up_combined, down_combined;
  Linear spatial_qkv, spatial_out, temporal_qkv, temporal_out;
  Linear cross_query, cross_memory, cross_out, up_split, down_split;
};

// Keys and values of groups of tokens that attend to each other, bfloat16 or float32: for each group and head the keys in panels
// [head / group, panel, group] and the values as [keys / group, head, group]. Past the last key stand zeros.
struct Memory {
  uint8_t* keys = nullptr;
  uint8_t* values = nullptr;
  int count = 0;                     // keys of a group
  size_t keys_stride = 0, values_stride = 0;  // bytes from a group to the next
};

// One thread's room for a chunk of rows. What is mixed is bfloat16, or float32 beside float32 weights.
struct Scratch {
  uint8_t* rows = nullptr;           // what a product reads, in the type of the weights [kChunk, inputs]
  float* row_scale = nullptr;        // [kChunk], for int8 weights
  int32_t* row_offset = nullptr;     // [kChunk]: what the 128 added to the weights adds to each sum
  float* attended = nullptr;         // [kChunk, width]
  float* hidden = nullptr;           // [kChunk, ff]
  float* line = nullptr;             // [max(width, ff)]
  uint8_t* query = nullptr;          // mixed [kChunk, width]
  float* scores = nullptr;           // [kTileRows, keys]
  uint8_t* weights = nullptr;        // mixed [kTileRows, keys]
};

// One pass of the transformer: what is given, what it works in, what it answers.
struct Pass {
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
  uint8_t* query = nullptr;          // mixed, of x's tokens
  uint8_t* spatial = nullptr;        // mixed [batch * 2 * parts * columns, 3 * width]
  uint8_t* temporal_query = nullptr;
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

// The places in a sample's x of a chunk's rows.
struct Rows {
  int place[kChunk];
  int count;
};

inline float* row_of(const Pass& pass, int sample, int place) {
  return pass.x + (static_cast<size_t>(sample) * pass.length() + place) * pass.width;
}

// Tokens of one person and part that follow each other: rows ``first`` .. of a chunk.
struct Run {
  int first, count, person, part, column;
};

struct Runs {
  Run run[kChunk];
  int count = 0;
};

// Row ``i`` of the tokens of ``people`` persons' ``last`` columns; the places of a chunk of them and its runs.
inline Runs runs_of(const Pass& pass, const Chunk& chunk, int first_person, int last, Rows& rows) {
  Runs runs;
  rows.count = chunk.count;
  for (int i = 0; i < chunk.count; ++i) {
    const int wanted = chunk.first + i;
    const int person = first_person + wanted / (pass.parts * last), part = wanted / last % pass.parts;
    const int column = pass.columns - last + wanted % last;
    rows.place[i] = (person * pass.parts + part) * pass.columns + column;
    if (i == 0 || wanted % last == 0) runs.run[runs.count++] = {i, 0, person, part, column};
    ++runs.run[runs.count - 1].count;
  }
  return runs;
}

// The phases of a pass, each over chunks that do not depend on each other.
struct Phases {
  // Embedding and the first block's queries, keys and values.
  void (*begin)(const Pass& pass, const Chunk& chunk, Scratch& scratch);
  // Attention over all tokens, feed-forward, and what the split half needs of each token.
  void (*combined)(const Pass& pass, int block, const Chunk& chunk, Scratch& scratch);
  // Both factorised attentions, the look at the other person, feed-forward, and the next block's queries, keys and values, or the
  // logits.
  void (*split)(const Pass& pass, int block, const Chunk& chunk, Scratch& scratch);
  // The separator passes the split half untouched.
  void (*separator)(const Pass& pass, int block, int row, Scratch& scratch);
};

// Of processors with AVX-512 F, BW, VL, VNNI and BF16, and of those with AVX2 and FMA.
extern const Phases kInt8Phases, kBfloat16Phases, kFloat32Phases;

}  // namespace rti::cpu
