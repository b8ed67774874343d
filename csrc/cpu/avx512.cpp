// The phases of a pass for processors with AVX-512 F, BW, VL, VNNI and BF16. Nothing of the standard library is included: what the
// linker merges between files must not be compiled for instructions that a user's processor may lack.
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512bf16"))), apply_to = function)
#elif defined(__GNUC__)
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512bf16")
// GCC 12 takes its own header's undefined pass-through operands for mistakes.
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"
#endif
#include "attention.h"
#include "model.h"
#include "product.h"
#include "vector.h"

namespace rti::cpu {
namespace {

enum Modulated { kAttention = 0, kCombined = 3, kSpatial = 6, kTemporal = 9, kQuery = 12, kMemory = 15, kSplit = 17 };
// A sublayer's three modulations follow each other.
constexpr int kShift = 0, kScale = 1, kGate = 2;

inline void add_gated(float* x, const float* gate, int column, __m512 y, __m512 residual) {
  _mm512_storeu_ps(x + column, fma(y, _mm512_loadu_ps(gate + column), residual));
}

inline void store_bfloat16(uint16_t* to, __m512 x) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), to_bfloat16(x)); }

// The places in a sample's x of a chunk's rows.
struct Rows {
  int place[kChunk];
  int count;
};

inline float* row_of(const Pass& pass, int sample, int place) {
  return pass.x + (static_cast<size_t>(sample) * pass.length() + place) * pass.width;
}

template <class Kind>
void make_ready(const Pass& pass, int sample, const Rows& rows, const float* shift, const float* scale, Scratch& scratch) {
  for (int i = 0; i < rows.count; ++i) {
    const float* x = row_of(pass, sample, rows.place[i]);
    ready_modulated<Kind>(scratch, i, x, spread(x, pass.width), shift, scale, pass.width);
  }
}

template <class Kind>
void make_ready(const float* values, int width, int count, Scratch& scratch) {
  for (int i = 0; i < count; ++i) {
    ready<Kind>(scratch, i, width, [&](int c) { return _mm512_loadu_ps(values + static_cast<size_t>(i) * width + c); });
  }
}

// x + gate * (W values + b), in place; ``doubled`` counts x twice.
template <class Kind>
void close(const Pass& pass, int sample, const Rows& rows, const Linear& linear, const float* gate, bool doubled, Scratch& scratch) {
  make_ready<Kind>(scratch.attended, pass.width, rows.count, scratch);
  product<Kind>(scratch, rows.count, linear, [&](int i, int column, __m512 y) {
    float* x = row_of(pass, sample, rows.place[i]);
    __m512 residual = _mm512_loadu_ps(x + column);
    if (doubled) residual = _mm512_add_ps(residual, residual);
    add_gated(x, gate, column, y, residual);
  });
}

template <class Kind>
void feed_forward(const Pass& pass, int sample, const Rows& rows, const Linear& up, const Linear& down, int block, int which,
                  Scratch& scratch) {
  make_ready<Kind>(pass, sample, rows, pass.modulation(sample, block, which + kShift), pass.modulation(sample, block, which + kScale),
                   scratch);
  product<Kind>(scratch, rows.count, up, [&](int i, int column, __m512 y) {
    _mm512_storeu_ps(scratch.hidden + static_cast<size_t>(i) * pass.ff + column, gelu(y));
  });
  make_ready<Kind>(scratch.hidden, pass.ff, rows.count, scratch);
  const float* gate = pass.modulation(sample, block, which + kGate);
  product<Kind>(scratch, rows.count, down, [&](int i, int column, __m512 y) {
    float* x = row_of(pass, sample, rows.place[i]);
    add_gated(x, gate, column, y, _mm512_loadu_ps(x + column));
  });
}

// Queries, keys and values of a block's attention over all tokens.
template <class Kind>
void project(const Pass& pass, int block, int sample, const Rows& rows, Scratch& scratch) {
  const int width = pass.width, head = pass.head();
  make_ready<Kind>(pass, sample, rows, pass.modulation(sample, block, kAttention + kShift),
                   pass.modulation(sample, block, kAttention + kScale), scratch);
  const size_t group = static_cast<size_t>(sample) * pass.heads;
  product<Kind>(scratch, rows.count, pass.layer[block].qkv, [&](int i, int column, __m512 y) {
    const int place = rows.place[i], channel = column % width;
    if (column < width) {
      store_bfloat16(pass.query + (static_cast<size_t>(sample) * pass.length() + place) * width + column, y);
    } else if (column < 2 * width) {
      keep_key(pass.self, group + channel / head, head, place, channel % head, y);
    } else {
      keep_value(pass.self, group + channel / head, head, place, channel % head, y);
    }
  });
}

template <class Kind>
void prepare_split(const Pass& pass, int block, int sample, const Rows& rows, Scratch& scratch) {
  const int width = pass.width, head = pass.head(), each = pass.tokens_each();
  const Layer& layer = pass.layer[block];
  const size_t first = static_cast<size_t>(sample) * 2 * each;
  make_ready<Kind>(pass, sample, rows, pass.modulation(sample, block, kSpatial + kShift), pass.modulation(sample, block, kSpatial + kScale),
                   scratch);
  product<Kind>(scratch, rows.count, layer.spatial_qkv, [&](int i, int column, __m512 y) {
    store_bfloat16(pass.spatial + (first + rows.place[i]) * 3 * width + column, y);
  });
  make_ready<Kind>(pass, sample, rows, pass.modulation(sample, block, kTemporal + kShift),
                   pass.modulation(sample, block, kTemporal + kScale), scratch);
  product<Kind>(scratch, rows.count, layer.temporal_qkv, [&](int i, int column, __m512 y) {
    const size_t token = first + rows.place[i];
    const size_t group = token / pass.columns * pass.heads;
    const int place = static_cast<int>(token % pass.columns), channel = column % width;
    if (column < width) {
      store_bfloat16(pass.temporal_query + token * width + column, y);
    } else if (column < 2 * width) {
      keep_key(pass.temporal, group + channel / head, head, place, channel % head, y);
    } else {
      keep_value(pass.temporal, group + channel / head, head, place, channel % head, y);
    }
  });
  make_ready<Kind>(pass, sample, rows, pass.modulation(sample, block, kMemory + kShift), pass.modulation(sample, block, kMemory + kScale),
                   scratch);
  product<Kind>(scratch, rows.count, layer.cross_memory, [&](int i, int column, __m512 y) {
    const size_t token = first + rows.place[i];
    const size_t group = token / each * pass.heads;
    const int place = static_cast<int>(token % each), channel = column % width;
    if (column < width) {
      keep_key(pass.cross, group + channel / head, head, place, channel % head, y);
    } else {
      keep_value(pass.cross, group + channel / head, head, place, channel % head, y);
    }
  });
}

template <class Kind>
void combined_as(const Pass& pass, int block, const Chunk& chunk, Scratch& scratch) {
  const Layer& layer = pass.layer[block];
  const int sample = chunk.row, width = pass.width;
  Rows rows;
  rows.count = chunk.count;
  for (int i = 0; i < chunk.count; ++i) rows.place[i] = chunk.first + i;
  attend(scratch, pass.query + (static_cast<size_t>(sample) * pass.length() + chunk.first) * width, width, chunk.count, pass.self,
         static_cast<size_t>(sample) * pass.heads, pass.heads, pass.head(), scratch.attended, width);
  close<Kind>(pass, sample, rows, layer.out, pass.modulation(sample, block, kAttention + kGate), false, scratch);
  feed_forward<Kind>(pass, sample, rows, layer.up_combined, layer.down_combined, block, kCombined, scratch);
  const int people = 2 * pass.tokens_each() - chunk.first;
  if (people < rows.count) rows.count = people;
  if (rows.count > 0) prepare_split<Kind>(pass, block, sample, rows, scratch);
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

template <class Kind>
void factorised(const Pass& pass, int block, int sample, const Rows& rows, const Runs& runs, Scratch& scratch) {
  const int width = pass.width, head = pass.head(), each = pass.tokens_each();
  const Layer& layer = pass.layer[block];
  const uint16_t* spatial = pass.spatial + static_cast<size_t>(sample) * 2 * each * 3 * width;
  for (int i = 0; i < rows.count; ++i) {
    const int place = rows.place[i];
    const uint16_t* first = spatial + static_cast<size_t>(place / each * each + place % pass.columns) * 3 * width;
    attend_parts(spatial + static_cast<size_t>(place) * 3 * width, first, static_cast<size_t>(pass.columns) * 3 * width, pass.parts,
                 pass.heads, head, scratch.attended + static_cast<size_t>(i) * width);
  }
  close<Kind>(pass, sample, rows, layer.spatial_out, pass.modulation(sample, block, kSpatial + kGate), true, scratch);
  for (int r = 0; r < runs.count; ++r) {
    const Run& run = runs.run[r];
    const size_t strip = static_cast<size_t>(sample * 2 + run.person) * pass.parts + run.part;
    attend(scratch, pass.temporal_query + (strip * pass.columns + run.column) * width, width, run.count, pass.temporal,
           strip * pass.heads, pass.heads, head, scratch.attended + static_cast<size_t>(run.first) * width, width);
  }
  close<Kind>(pass, sample, rows, layer.temporal_out, pass.modulation(sample, block, kTemporal + kGate), false, scratch);
}

template <class Kind>
void exchange(const Pass& pass, int block, int sample, const Rows& rows, const Runs& runs, Scratch& scratch) {
  const int width = pass.width;
  const Layer& layer = pass.layer[block];
  make_ready<Kind>(pass, sample, rows, pass.modulation(sample, block, kQuery + kShift), pass.modulation(sample, block, kQuery + kScale),
                   scratch);
  product<Kind>(scratch, rows.count, layer.cross_query, [&](int i, int column, __m512 y) {
    store_bfloat16(scratch.query + static_cast<size_t>(i) * width + column, y);
  });
  for (int r = 0; r < runs.count;) {
    const int first = runs.run[r].first, person = runs.run[r].person;
    int count = 0;
    for (; r < runs.count && runs.run[r].person == person; ++r) count += runs.run[r].count;
    attend(scratch, scratch.query + static_cast<size_t>(first) * width, width, count, pass.cross,
           static_cast<size_t>(sample * 2 + 1 - person) * pass.heads, pass.heads, pass.head(),
           scratch.attended + static_cast<size_t>(first) * width, width);
  }
  close<Kind>(pass, sample, rows, layer.cross_out, pass.modulation(sample, block, kQuery + kGate), false, scratch);
}

template <class Kind>
void answer(const Pass& pass, const Chunk& chunk, const Rows& rows, Scratch& scratch) {
  const int width = pass.width, sample = chunk.row;
  for (int i = 0; i < rows.count; ++i) {
    const float* x = row_of(pass, sample, rows.place[i]);
    ready<Kind>(scratch, i, width, [&](int c) { return _mm512_loadu_ps(x + c); });
  }
  product<Kind>(scratch, rows.count, pass.dense, [&](int i, int column, __m512 y) {
    _mm512_storeu_ps(scratch.attended + static_cast<size_t>(i) * width + column, gelu(y));
  });
  const float* shift = pass.modulation(sample, pass.layers, kShift);
  const float* scale = pass.modulation(sample, pass.layers, kScale);
  for (int i = 0; i < rows.count; ++i) {
    const float* x = scratch.attended + static_cast<size_t>(i) * width;
    ready_modulated<Kind>(scratch, i, x, spread(x, width), shift, scale, width);
  }
  float* logits = pass.logits + (static_cast<size_t>(sample) * pass.people * pass.parts * pass.last + chunk.first) * pass.codes;
  product<Kind>(scratch, rows.count, pass.output, [&](int i, int column, __m512 y) {
    const int left = pass.codes - column;
    const __mmask16 inside = static_cast<__mmask16>(left >= kLanes ? 0xffff : (1u << left) - 1);
    _mm512_mask_storeu_ps(logits + static_cast<size_t>(i) * pass.codes + column, inside, y);
  });
}

template <class Kind>
void split_as(const Pass& pass, int block, const Chunk& chunk, Scratch& scratch) {
  const bool final = block + 1 == pass.layers;
  const int sample = chunk.row;
  Rows rows;
  const Runs runs = runs_of(pass, chunk, final ? pass.first_person : 0, final ? pass.last : pass.columns, rows);
  factorised<Kind>(pass, block, sample, rows, runs, scratch);
  exchange<Kind>(pass, block, sample, rows, runs, scratch);
  feed_forward<Kind>(pass, sample, rows, pass.layer[block].up_split, pass.layer[block].down_split, block, kSplit, scratch);
  if (final) {
    answer<Kind>(pass, chunk, rows, scratch);
  } else {
    project<Kind>(pass, block + 1, sample, rows, scratch);
  }
}

inline void embed(const Pass& pass, int sample, int place) {
  const int width = pass.width, each = pass.tokens_each();
  float* x = row_of(pass, sample, place);
  const bool person = place < 2 * each;
  const int64_t token = person ? pass.tokens[static_cast<size_t>(sample) * 2 * each + place] : pass.codes + 2;
  const float* known = pass.table + static_cast<size_t>(token) * width;
  const float* position = pass.positions + static_cast<size_t>(place % each) * width;
  const float* placed = nullptr;
  if (pass.placement) {
    placed = pass.placement + (static_cast<size_t>(sample * 2 + place / each) * pass.columns + place % pass.columns) * width;
  }
  for (int c = 0; c < width; c += kLanes) {
    __m512 value = _mm512_loadu_ps(known + c);
    if (person) value = _mm512_add_ps(value, _mm512_loadu_ps(position + c));
    if (person && placed) value = _mm512_add_ps(value, _mm512_loadu_ps(placed + c));
    _mm512_storeu_ps(x + c, value);
  }
}

template <class Kind>
void begin_as(const Pass& pass, const Chunk& chunk, Scratch& scratch) {
  Rows rows;
  rows.count = chunk.count;
  for (int i = 0; i < chunk.count; ++i) {
    rows.place[i] = chunk.first + i;
    embed(pass, chunk.row, rows.place[i]);
  }
  project<Kind>(pass, 0, chunk.row, rows, scratch);
}

template <class Kind>
void separator_as(const Pass& pass, int block, int sample, Scratch& scratch) {
  Rows rows;
  rows.count = 1;
  rows.place[0] = 2 * pass.tokens_each();
  project<Kind>(pass, block, sample, rows, scratch);
}

}  // namespace

void begin(const Pass& pass, const Chunk& chunk, Scratch& scratch) {
  pass.kind == Weights::kInt8 ? begin_as<Int8>(pass, chunk, scratch) : begin_as<Bfloat16>(pass, chunk, scratch);
}

void combined(const Pass& pass, int block, const Chunk& chunk, Scratch& scratch) {
  pass.kind == Weights::kInt8 ? combined_as<Int8>(pass, block, chunk, scratch) : combined_as<Bfloat16>(pass, block, chunk, scratch);
}

void split(const Pass& pass, int block, const Chunk& chunk, Scratch& scratch) {
  pass.kind == Weights::kInt8 ? split_as<Int8>(pass, block, chunk, scratch) : split_as<Bfloat16>(pass, block, chunk, scratch);
}

void separator(const Pass& pass, int block, int row, Scratch& scratch) {
  pass.kind == Weights::kInt8 ? separator_as<Int8>(pass, block, row, scratch) : separator_as<Bfloat16>(pass, block, row, scratch);
}

}  // namespace rti::cpu
#if defined(__clang__)
#pragma clang attribute pop
#endif
