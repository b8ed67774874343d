// The phases of a pass (`Phases`) for any ``Kind`` of weights.
#pragma once
#include "attention.h"
#include "model.h"
#include "product.h"
#include "vector.h"

namespace rti::cpu {

enum Modulated { kAttention = 0, kCombined = 3, kSpatial = 6, kTemporal = 9, kQuery = 12, kMemory = 15, kSplit = 17 };
// A sublayer's three modulations follow each other.
constexpr int kShift = 0, kScale = 1, kGate = 2;

template <class Kind>
using MixedOf = typename Kind::Mixed;

template <class Kind>
RTI_INLINE typename MixedOf<Kind>::Value* mixed(uint8_t* p) {
  return reinterpret_cast<typename MixedOf<Kind>::Value*>(p);
}

template <class Kind>
RTI_INLINE void add_gated(float* x, const float* gate, int column, typename Kind::Floats y, typename Kind::Floats residual) {
  Kind::store(x + column, Kind::fma(y, Kind::load(gate + column), residual));
}

template <class Kind>
void make_ready(const Pass& pass, int sample, const Rows& rows, const float* shift, const float* scale, Scratch& scratch) {
  for (int i = 0; i < rows.count; ++i) {
    const float* x = row_of(pass, sample, rows.place[i]);
    ready_modulated<Kind>(scratch, i, x, shift, scale, pass.width);
  }
}

template <class Kind>
void make_ready(const float* values, int width, int count, Scratch& scratch) {
  for (int i = 0; i < count; ++i) {
    Kind::ready(scratch, i, width, [&](int c) RTI_INLINE_LAMBDA { return Kind::load(values + static_cast<size_t>(i) * width + c); });
  }
}

// x + gate * (W values + b), in place; ``doubled`` counts x twice.
template <class Kind>
void close(const Pass& pass, int sample, const Rows& rows, const Linear& linear, const float* gate, bool doubled, Scratch& scratch) {
  make_ready<Kind>(scratch.attended, pass.width, rows.count, scratch);
  product<Kind>(scratch, rows.count, linear, [&](int i, int column, typename Kind::Floats y) RTI_INLINE_LAMBDA {
    float* x = row_of(pass, sample, rows.place[i]);
    auto residual = Kind::load(x + column);
    if (doubled) residual = Kind::add(residual, residual);
    add_gated<Kind>(x, gate, column, y, residual);
  });
}

template <class Kind>
void feed_forward(const Pass& pass, int sample, const Rows& rows, const Linear& up, const Linear& down, int block, int which,
                  Scratch& scratch) {
  make_ready<Kind>(pass, sample, rows, pass.modulation(sample, block, which + kShift), pass.modulation(sample, block, which + kScale),
                   scratch);
  product<Kind>(scratch, rows.count, up, [&](int i, int column, typename Kind::Floats y) RTI_INLINE_LAMBDA {
    Kind::store(scratch.hidden + static_cast<size_t>(i) * pass.ff + column, gelu<Kind>(y));
  });
  make_ready<Kind>(scratch.hidden, pass.ff, rows.count, scratch);
  const float* gate = pass.modulation(sample, block, which + kGate);
  product<Kind>(scratch, rows.count, down, [&](int i, int column, typename Kind::Floats y) RTI_INLINE_LAMBDA {
    float* x = row_of(pass, sample, rows.place[i]);
    add_gated<Kind>(x, gate, column, y, Kind::load(x + column));
  });
}

// Queries, keys and values of a block's attention over all tokens.
template <class Kind>
void project(const Pass& pass, int block, int sample, const Rows& rows, Scratch& scratch) {
  const int width = pass.width, head = pass.head();
  make_ready<Kind>(pass, sample, rows, pass.modulation(sample, block, kAttention + kShift),
                   pass.modulation(sample, block, kAttention + kScale), scratch);
  const size_t group = static_cast<size_t>(sample) * pass.heads;
  product<Kind>(scratch, rows.count, pass.layer[block].qkv, [&](int i, int column, typename Kind::Floats y) RTI_INLINE_LAMBDA {
    const int place = rows.place[i], channel = column % width;
    if (column < width) {
      Kind::Mixed::write(mixed<Kind>(pass.query) + (static_cast<size_t>(sample) * pass.length() + place) * width + column, y);
    } else if (column < 2 * width) {
      keep_key<MixedOf<Kind>>(pass.self, group + channel / head, head, place, channel % head, y);
    } else {
      keep_value<MixedOf<Kind>>(pass.self, group + channel / head, head, place, channel % head, y);
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
  product<Kind>(scratch, rows.count, layer.spatial_qkv, [&](int i, int column, typename Kind::Floats y) RTI_INLINE_LAMBDA {
    Kind::Mixed::write(mixed<Kind>(pass.spatial) + (first + rows.place[i]) * 3 * width + column, y);
  });
  make_ready<Kind>(pass, sample, rows, pass.modulation(sample, block, kTemporal + kShift),
                   pass.modulation(sample, block, kTemporal + kScale), scratch);
  product<Kind>(scratch, rows.count, layer.temporal_qkv, [&](int i, int column, typename Kind::Floats y) RTI_INLINE_LAMBDA {
    const size_t token = first + rows.place[i];
    const size_t group = token / pass.columns * pass.heads;
    const int place = static_cast<int>(token % pass.columns), channel = column % width;
    if (column < width) {
      Kind::Mixed::write(mixed<Kind>(pass.temporal_query) + token * width + column, y);
    } else if (column < 2 * width) {
      keep_key<MixedOf<Kind>>(pass.temporal, group + channel / head, head, place, channel % head, y);
    } else {
      keep_value<MixedOf<Kind>>(pass.temporal, group + channel / head, head, place, channel % head, y);
    }
  });
  make_ready<Kind>(pass, sample, rows, pass.modulation(sample, block, kMemory + kShift), pass.modulation(sample, block, kMemory + kScale),
                   scratch);
  product<Kind>(scratch, rows.count, layer.cross_memory, [&](int i, int column, typename Kind::Floats y) RTI_INLINE_LAMBDA {
    const size_t token = first + rows.place[i];
    const size_t group = token / each * pass.heads;
    const int place = static_cast<int>(token % each), channel = column % width;
    if (column < width) {
      keep_key<MixedOf<Kind>>(pass.cross, group + channel / head, head, place, channel % head, y);
    } else {
      keep_value<MixedOf<Kind>>(pass.cross, group + channel / head, head, place, channel % head, y);
    }
  });
}

template <class Kind>
void combined(const Pass& pass, int block, const Chunk& chunk, Scratch& scratch) {
  const Layer& layer = pass.layer[block];
  const int sample = chunk.row, width = pass.width;
  Rows rows;
  rows.count = chunk.count;
  for (int i = 0; i < chunk.count; ++i) rows.place[i] = chunk.first + i;
  const size_t first = static_cast<size_t>(sample) * pass.length() + chunk.first;
  attend<MixedOf<Kind>>(scratch, mixed<Kind>(pass.query) + first * width, width, chunk.count, pass.self,
                        static_cast<size_t>(sample) * pass.heads, pass.heads, pass.head(), scratch.attended, width);
  close<Kind>(pass, sample, rows, layer.out, pass.modulation(sample, block, kAttention + kGate), false, scratch);
  feed_forward<Kind>(pass, sample, rows, layer.up_combined, layer.down_combined, block, kCombined, scratch);
  const int people = 2 * pass.tokens_each() - chunk.first;
  if (people < rows.count) rows.count = people;
  if (rows.count > 0) prepare_split<Kind>(pass, block, sample, rows, scratch);
}

template <class Kind>
void factorised(const Pass& pass, int block, int sample, const Rows& rows, const Runs& runs, Scratch& scratch) {
  const int width = pass.width, head = pass.head(), each = pass.tokens_each();
  const Layer& layer = pass.layer[block];
  const typename MixedOf<Kind>::Value* spatial = mixed<Kind>(pass.spatial) + static_cast<size_t>(sample) * 2 * each * 3 * width;
  for (int i = 0; i < rows.count; ++i) {
    const int place = rows.place[i];
    const typename MixedOf<Kind>::Value* first = spatial + static_cast<size_t>(place / each * each + place % pass.columns) * 3 * width;
    attend_parts<MixedOf<Kind>>(spatial + static_cast<size_t>(place) * 3 * width, first,
                                static_cast<size_t>(pass.columns) * 3 * width, pass.parts, pass.heads, head,
                                scratch.attended + static_cast<size_t>(i) * width);
  }
  close<Kind>(pass, sample, rows, layer.spatial_out, pass.modulation(sample, block, kSpatial + kGate), true, scratch);
  for (int r = 0; r < runs.count; ++r) {
    const Run& run = runs.run[r];
    const size_t strip = static_cast<size_t>(sample * 2 + run.person) * pass.parts + run.part;
    attend<MixedOf<Kind>>(scratch, mixed<Kind>(pass.temporal_query) + (strip * pass.columns + run.column) * width, width,
                          run.count, pass.temporal, strip * pass.heads, pass.heads, head,
                          scratch.attended + static_cast<size_t>(run.first) * width, width);
  }
  close<Kind>(pass, sample, rows, layer.temporal_out, pass.modulation(sample, block, kTemporal + kGate), false, scratch);
}

template <class Kind>
void exchange(const Pass& pass, int block, int sample, const Rows& rows, const Runs& runs, Scratch& scratch) {
  const int width = pass.width;
  const Layer& layer = pass.layer[block];
  make_ready<Kind>(pass, sample, rows, pass.modulation(sample, block, kQuery + kShift), pass.modulation(sample, block, kQuery + kScale),
                   scratch);
  product<Kind>(scratch, rows.count, layer.cross_query, [&](int i, int column, typename Kind::Floats y) RTI_INLINE_LAMBDA {
    Kind::Mixed::write(mixed<Kind>(scratch.query) + static_cast<size_t>(i) * width + column, y);
  });
  for (int r = 0; r < runs.count;) {
    const int first = runs.run[r].first, person = runs.run[r].person;
    int count = 0;
    for (; r < runs.count && runs.run[r].person == person; ++r) count += runs.run[r].count;
    attend<MixedOf<Kind>>(scratch, mixed<Kind>(scratch.query) + static_cast<size_t>(first) * width, width, count, pass.cross,
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
    Kind::ready(scratch, i, width, [&](int c) RTI_INLINE_LAMBDA { return Kind::load(x + c); });
  }
  product<Kind>(scratch, rows.count, pass.dense, [&](int i, int column, typename Kind::Floats y) RTI_INLINE_LAMBDA {
    Kind::store(scratch.attended + static_cast<size_t>(i) * width + column, gelu<Kind>(y));
  });
  const float* shift = pass.modulation(sample, pass.layers, kShift);
  const float* scale = pass.modulation(sample, pass.layers, kScale);
  for (int i = 0; i < rows.count; ++i) {
    const float* x = scratch.attended + static_cast<size_t>(i) * width;
    ready_modulated<Kind>(scratch, i, x, shift, scale, width);
  }
  float* logits = pass.logits + (static_cast<size_t>(sample) * pass.people * pass.parts * pass.last + chunk.first) * pass.codes;
  product<Kind>(scratch, rows.count, pass.output, [&](int i, int column, typename Kind::Floats y) RTI_INLINE_LAMBDA {
    const int left = pass.codes - column;
    float* to = logits + static_cast<size_t>(i) * pass.codes + column;
    left >= kLanes ? Kind::store(to, y) : Kind::store_first(to, left, y);
  });
}

template <class Kind>
void split(const Pass& pass, int block, const Chunk& chunk, Scratch& scratch) {
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

template <class Kind>
void embed(const Pass& pass, int sample, int place) {
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
    auto value = Kind::load(known + c);
    if (person) value = Kind::add(value, Kind::load(position + c));
    if (person && placed) value = Kind::add(value, Kind::load(placed + c));
    Kind::store(x + c, value);
  }
}

template <class Kind>
void begin(const Pass& pass, const Chunk& chunk, Scratch& scratch) {
  Rows rows;
  rows.count = chunk.count;
  for (int i = 0; i < chunk.count; ++i) {
    rows.place[i] = chunk.first + i;
    embed<Kind>(pass, chunk.row, rows.place[i]);
  }
  project<Kind>(pass, 0, chunk.row, rows, scratch);
}

template <class Kind>
void separator(const Pass& pass, int block, int sample, Scratch& scratch) {
  Rows rows;
  rows.count = 1;
  rows.place[0] = 2 * pass.tokens_each();
  project<Kind>(pass, block, sample, rows, scratch);
}

template <class Kind>
constexpr Phases phases() {
  return {begin<Kind>, combined<Kind>, split<Kind>, separator<Kind>};
}

}  // namespace rti::cpu
