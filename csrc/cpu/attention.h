// Attention of a few queries at a time: all scores of six rows fit the first-level cache, so the softmax is exact and in one pass.
#pragma once
#include "model.h"
#include "product.h"

namespace rti::cpu {

inline uint16_t* keys_of(const Memory& m, size_t group) { return m.keys + group * m.keys_stride; }
inline uint16_t* values_of(const Memory& m, size_t group) { return m.values + group * m.values_stride; }

// 16 channels from ``channel`` on of the key, or of the value, that stands at ``place`` in its group and head.
inline void keep_key(const Memory& m, size_t group, int head, int place, int channel, __m512 x) {
  alignas(32) uint32_t pairs[8];
  _mm256_store_si256(reinterpret_cast<__m256i*>(pairs), to_bfloat16(x));
  uint32_t* at = reinterpret_cast<uint32_t*>(keys_of(m, group)) + (static_cast<size_t>(place / kPanel) * (head / 2) + channel / 2) * kPanel +
                 place % kPanel;
  for (int i = 0; i < 8; ++i) at[i * kPanel] = pairs[i];
}

inline void keep_value(const Memory& m, size_t group, int head, int place, int channel, __m512 x) {
  alignas(32) uint16_t values[16];
  _mm256_store_si256(reinterpret_cast<__m256i*>(values), to_bfloat16(x));
  uint16_t* at = values_of(m, group) + (static_cast<size_t>(place / 2) * head + channel) * 2 + place % 2;
  for (int i = 0; i < 16; ++i) at[2 * i] = values[i];
}

template <int ROWS, int PANEL>
inline void scores_panel(const uint16_t* query, size_t pitch, const uint16_t* panel, int head, float scale, float* out, size_t room) {
  sums<Bfloat16, ROWS, PANEL>(reinterpret_cast<const int32_t*>(query), pitch / 2, reinterpret_cast<const uint8_t*>(panel), 4, head / 2,
                              [&](int i, int j, __m512 sum) RTI_INLINE_LAMBDA {
                                _mm512_storeu_ps(out + i * room + j * kLanes, _mm512_mul_ps(sum, _mm512_set1_ps(scale)));
                              });
}

// exp of a row less its largest, in bfloat16 with zeros up to whole vectors; answers one over their sum.
inline float soften(const float* scores, uint16_t* weights, int keys) {
  const int whole = keys / kLanes * kLanes;
  const __mmask16 rest = static_cast<__mmask16>((1u << (keys - whole)) - 1);
  __m512 top = _mm512_set1_ps(-3.0e38f);
  for (int k = 0; k < whole; k += kLanes) top = _mm512_max_ps(top, _mm512_loadu_ps(scores + k));
  if (rest) top = _mm512_mask_max_ps(top, rest, top, _mm512_loadu_ps(scores + whole));
  const __m512 largest = _mm512_set1_ps(_mm512_reduce_max_ps(top));
  __m512 sum = _mm512_setzero_ps();
  for (int k = 0; k < whole; k += kLanes) {
    const __m512 e = exp2_coarse(_mm512_sub_ps(_mm512_loadu_ps(scores + k), largest));
    sum = _mm512_add_ps(sum, e);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(weights + k), to_bfloat16(e));
  }
  if (rest) {
    const __m512 e = _mm512_maskz_mov_ps(rest, exp2_coarse(_mm512_sub_ps(_mm512_loadu_ps(scores + whole), largest)));
    sum = _mm512_add_ps(sum, e);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(weights + whole), to_bfloat16(e));
  }
  return 1.0f / _mm512_reduce_add_ps(sum);
}

template <int ROWS, int PANEL>
inline void weighted(const Scratch& scratch, size_t room, const uint16_t* values, int keys, const float* over, float* out, size_t pitch) {
  sums<Bfloat16, ROWS, PANEL>(reinterpret_cast<const int32_t*>(scratch.weights), room / 2, reinterpret_cast<const uint8_t*>(values), PANEL,
                              (keys + 1) / 2, [&](int i, int j, __m512 sum) RTI_INLINE_LAMBDA {
                                _mm512_storeu_ps(out + i * pitch + j * kLanes, _mm512_mul_ps(sum, _mm512_set1_ps(over[i])));
                              });
}

// ROWS queries bfloat16, ``query_pitch`` apart, of one head against a group's keys; float32 answers ``pitch`` apart.
template <int ROWS>
inline void attend_rows(const Scratch& scratch, const uint16_t* query, size_t query_pitch, const Memory& m, size_t group, int head,
                        float* out, size_t pitch) {
  const int keys = m.count;
  const size_t room = static_cast<size_t>((keys + kPanel - 1) / kPanel) * kPanel;
  // The softmax counts in powers of two.
  const __m512 root = _mm512_sqrt_ps(_mm512_set1_ps(static_cast<float>(head)));
  const float scale = 1.44269504f / _mm512_cvtss_f32(root);
  const uint16_t* panel = keys_of(m, group);
  for (int first = 0; first < keys; first += kPanel, panel += static_cast<size_t>(head) * kPanel) {
    float* to = scratch.scores + first;
    switch ((keys - first + kLanes - 1) / kLanes) {
      case 1: scores_panel<ROWS, 1>(query, query_pitch, panel, head, scale, to, room); break;
      case 2: scores_panel<ROWS, 2>(query, query_pitch, panel, head, scale, to, room); break;
      case 3: scores_panel<ROWS, 3>(query, query_pitch, panel, head, scale, to, room); break;
      default: scores_panel<ROWS, 4>(query, query_pitch, panel, head, scale, to, room);
    }
  }
  float over[ROWS];
  for (int i = 0; i < ROWS; ++i) over[i] = soften(scratch.scores + i * room, scratch.weights + i * room, keys);
  const uint16_t* values = values_of(m, group);
  switch (head / kLanes) {
    case 1: weighted<ROWS, 1>(scratch, room, values, keys, over, out, pitch); break;
    case 2: weighted<ROWS, 2>(scratch, room, values, keys, over, out, pitch); break;
    case 3: weighted<ROWS, 3>(scratch, room, values, keys, over, out, pitch); break;
    default: weighted<ROWS, 4>(scratch, room, values, keys, over, out, pitch);
  }
}

// ``count`` queries [count, heads * head] of all heads against the groups from ``group`` on (one a head).
inline void attend(const Scratch& scratch, const uint16_t* query, size_t query_pitch, int count, const Memory& m, size_t group, int heads,
                   int head, float* out, size_t pitch) {
  for (int h = 0; h < heads; ++h) {
    for (int first = 0; first < count; first += kTileRows) {
      const uint16_t* q = query + first * query_pitch + h * head;
      float* to = out + first * pitch + h * head;
      switch (count - first) {
        case 1: attend_rows<1>(scratch, q, query_pitch, m, group + h, head, to, pitch); break;
        case 2: attend_rows<2>(scratch, q, query_pitch, m, group + h, head, to, pitch); break;
        case 3: attend_rows<3>(scratch, q, query_pitch, m, group + h, head, to, pitch); break;
        case 4: attend_rows<4>(scratch, q, query_pitch, m, group + h, head, to, pitch); break;
        case 5: attend_rows<5>(scratch, q, query_pitch, m, group + h, head, to, pitch); break;
        default: attend_rows<6>(scratch, q, query_pitch, m, group + h, head, to, pitch);
      }
    }
  }
}

// One token over the ``parts`` tokens of its column, whose queries, keys and values [.., 3 * width] are ``column`` tokens apart.
inline void attend_parts(const uint16_t* own, const uint16_t* first, size_t column, int parts, int heads, int head, float* out) {
  const int width = heads * head;
  const float scale = 1.44269504f / _mm512_cvtss_f32(_mm512_sqrt_ps(_mm512_set1_ps(static_cast<float>(head))));
  for (int h = 0; h < heads; ++h) {
    alignas(64) float score[kLanes];
    for (int p = 0; p < kLanes; ++p) score[p] = -3.0e38f;
    for (int p = 0; p < parts; ++p) {
      const uint16_t* key = first + p * column + width + h * head;
      __m512 sum = _mm512_setzero_ps();
      for (int c = 0; c < head; c += kLanes) sum = fma(from_bfloat16(own + h * head + c), from_bfloat16(key + c), sum);
      score[p] = _mm512_reduce_add_ps(sum) * scale;
    }
    const __m512 all = _mm512_load_ps(score);
    const __m512 e = exp2_fine(_mm512_sub_ps(all, _mm512_set1_ps(_mm512_reduce_max_ps(all))));
    _mm512_store_ps(score, _mm512_div_ps(e, _mm512_set1_ps(_mm512_reduce_add_ps(e))));
    for (int c = 0; c < head; c += kLanes) {
      __m512 sum = _mm512_setzero_ps();
      for (int p = 0; p < parts; ++p) {
        sum = fma(_mm512_set1_ps(score[p]), from_bfloat16(first + p * column + 2 * width + h * head + c), sum);
      }
      _mm512_storeu_ps(out + h * head + c, sum);
    }
  }
}

}  // namespace rti::cpu
