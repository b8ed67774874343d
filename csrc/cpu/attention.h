// Attention of a few queries at a time: all scores of six rows fit the first-level cache, so the softmax is exact and in one pass.
// ``Mixed`` is the kind in which queries, keys and values are multiplied: `Bfloat16` or `Float32`.
#pragma once
#include "model.h"
#include "product.h"

namespace rti::cpu {

// 16 channels from ``channel`` on of the key, or of the value, that stands at ``place`` in its group and head.
template <class Mixed>
inline void keep_key(const Memory& m, size_t group, int head, int place, int channel, typename Mixed::Floats x) {
  constexpr int beside = Mixed::kLayout.group, panel = Mixed::kLayout.panel;
  alignas(64) uint32_t words[kLanes / beside];
  Mixed::write(reinterpret_cast<typename Mixed::Value*>(words), x);
  uint32_t* at = reinterpret_cast<uint32_t*>(m.keys + group * m.keys_stride) +
                 (static_cast<size_t>(place / panel) * (head / beside) + channel / beside) * panel + place % panel;
  for (int i = 0; i < kLanes / beside; ++i) at[i * panel] = words[i];
}

template <class Mixed>
inline void keep_value(const Memory& m, size_t group, int head, int place, int channel, typename Mixed::Floats x) {
  constexpr int beside = Mixed::kLayout.group;
  using Value = typename Mixed::Value;
  Value* at = reinterpret_cast<Value*>(m.values + group * m.values_stride) +
              (static_cast<size_t>(place / beside) * head + channel) * beside + place % beside;
  if constexpr (beside == 1) {
    Mixed::write(at, x);
  } else {
    alignas(64) Value values[kLanes];
    Mixed::write(values, x);
    for (int i = 0; i < kLanes; ++i) at[beside * i] = values[i];
  }
}

// exp of a row less its largest, with zeros up to whole vectors; answers one over their sum.
template <class Mixed>
inline float soften(const float* scores, typename Mixed::Value* weights, int keys) {
  constexpr float least = -3.0e38f;
  const int whole = keys / kLanes * kLanes, rest = keys - whole;
  auto top = Mixed::all(least);
  for (int k = 0; k < whole; k += kLanes) top = Mixed::max(top, Mixed::load(scores + k));
  if (rest) top = Mixed::max(top, Mixed::load_first(scores + whole, rest, least));
  const auto largest = Mixed::all(Mixed::largest(top));
  auto sum = Mixed::zero();
  const auto take = [&](int k, typename Mixed::Floats x) {
    const auto e = Mixed::exp2(Mixed::sub(x, largest));
    sum = Mixed::add(sum, e);
    Mixed::write(weights + k, e);
  };
  for (int k = 0; k < whole; k += kLanes) take(k, Mixed::load(scores + k));
  if (rest) take(whole, Mixed::load_first(scores + whole, rest, least));
  return 1.0f / Mixed::sum(sum);
}

// The softmax counts in powers of two.
template <class Mixed>
inline float score_scale(int head) {
  return 1.44269504f / Mixed::root(static_cast<float>(head));
}

// ROWS queries, ``query_pitch`` apart, of one head against a group's keys; float32 answers ``pitch`` apart.
template <class Mixed, int ROWS>
inline void attend_rows(const Scratch& scratch, const typename Mixed::Value* query, size_t query_pitch, const Memory& m, size_t group,
                        int head, float* out, size_t pitch) {
  using Value = typename Mixed::Value;
  constexpr int beside = Mixed::kLayout.group, columns = Mixed::kLayout.panel;
  const int keys = m.count;
  const size_t room = static_cast<size_t>((keys + columns - 1) / columns) * columns;
  const auto scale = Mixed::all(score_scale<Mixed>(head));
  const uint8_t* panel = m.keys + group * m.keys_stride;
  for (int first = 0; first < keys; first += columns, panel += static_cast<size_t>(head) * columns * sizeof(Value)) {
    counted<columns / kLanes>((keys - first + kLanes - 1) / kLanes, [&](auto vectors) {
      sums<Mixed, ROWS, decltype(vectors)::value>(query, query_pitch * sizeof(Value), panel, columns / kLanes, head / beside,
                                                  [&](int i, int j, typename Mixed::Floats sum) RTI_INLINE_LAMBDA {
                                                    Mixed::store(scratch.scores + first + i * room + j * kLanes,
                                                                 Mixed::mul(sum, scale));
                                                  });
    });
  }
  float over[ROWS];
  Value* weights = reinterpret_cast<Value*>(scratch.weights);
  for (int i = 0; i < ROWS; ++i) over[i] = soften<Mixed>(scratch.scores + i * room, weights + i * room, keys);
  const uint8_t* values = m.values + group * m.values_stride;
  for (int first = 0; first < head; first += columns) {
    counted<columns / kLanes>((head - first) / kLanes, [&](auto vectors) {
      sums<Mixed, ROWS, decltype(vectors)::value>(weights, room * sizeof(Value), values + static_cast<size_t>(first) * kWord,
                                                  head / kLanes, (keys + beside - 1) / beside,
                                                  [&](int i, int j, typename Mixed::Floats sum) RTI_INLINE_LAMBDA {
                                                    Mixed::store(out + i * pitch + first + j * kLanes,
                                                                 Mixed::mul(sum, Mixed::all(over[i])));
                                                  });
    });
  }
}

// ``count`` queries [count, heads * head] of all heads against the groups from ``group`` on (one a head).
template <class Mixed>
inline void attend(const Scratch& scratch, const typename Mixed::Value* query, size_t query_pitch, int count, const Memory& m,
                   size_t group, int heads, int head, float* out, size_t pitch) {
  for (int h = 0; h < heads; ++h) {
    for (int first = 0; first < count; first += kTileRows) {
      counted<kTileRows>(count - first, [&](auto rows) {
        attend_rows<Mixed, decltype(rows)::value>(scratch, query + first * query_pitch + h * head, query_pitch, m, group + h, head,
                                                  out + first * pitch + h * head, pitch);
      });
    }
  }
}

// One token over the ``parts`` tokens of its column, whose queries, keys and values [.., 3 * width] are ``column`` tokens apart.
template <class Mixed>
inline void attend_parts(const typename Mixed::Value* own, const typename Mixed::Value* first, size_t column, int parts, int heads,
                         int head, float* out) {
  const int width = heads * head;
  const float scale = score_scale<Mixed>(head);
  for (int h = 0; h < heads; ++h) {
    alignas(64) float score[kLanes];
    for (int p = 0; p < kLanes; ++p) score[p] = -3.0e38f;
    for (int p = 0; p < parts; ++p) {
      const typename Mixed::Value* key = first + p * column + width + h * head;
      auto sum = Mixed::zero();
      for (int c = 0; c < head; c += kLanes) sum = Mixed::fma(Mixed::read(own + h * head + c), Mixed::read(key + c), sum);
      score[p] = Mixed::sum(sum) * scale;
    }
    const auto all = Mixed::load(score);
    const auto e = exp2_fine<Mixed>(Mixed::sub(all, Mixed::all(Mixed::largest(all))));
    Mixed::store(score, Mixed::div(e, Mixed::all(Mixed::sum(e))));
    for (int c = 0; c < head; c += kLanes) {
      auto sum = Mixed::zero();
      for (int p = 0; p < parts; ++p) {
        sum = Mixed::fma(Mixed::all(score[p]), Mixed::read(first + p * column + 2 * width + h * head + c), sum);
      }
      Mixed::store(out + h * head + c, sum);
    }
  }
}

}  // namespace rti::cpu
