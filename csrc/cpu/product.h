// Products of a chunk of rows with packed weights, and the rows made ready for them.
#pragma once
#include <utility>

#include "model.h"
#include "vector.h"

namespace rti::cpu {

constexpr float kEpsilon = 1e-6f;

struct Int8 {
  static constexpr int kGroup = 4;
  static constexpr int kBytes = 1;
  using Sum = __m512i;
  static Sum zero() { return _mm512_setzero_si512(); }
  static Sum add(Sum sum, __m512i weights, __m512i rows) { return _mm512_dpbusd_epi32(sum, weights, rows); }
};

struct Bfloat16 {
  static constexpr int kGroup = 2;
  static constexpr int kBytes = 2;
  using Sum = __m512;
  static Sum zero() { return _mm512_setzero_ps(); }
  static Sum add(Sum sum, __m512i weights, __m512i rows) {
    return _mm512_dpbf16_ps(sum, reinterpret_cast<__m512bh>(weights), reinterpret_cast<__m512bh>(rows));
  }
};

// In the kernels every index of a sum is a constant: compilers keep sums in registers only where they see no loop over them.
template <class Kind, class Sum, size_t... J>
RTI_INLINE void add_row(Sum* sum, const __m512i* weights, int32_t row, std::index_sequence<J...>) {
  const __m512i all = _mm512_set1_epi32(row);
  ((sum[J] = Kind::add(sum[J], weights[J], all)), ...);
}

template <class Sum, class Emit, size_t... J>
RTI_INLINE void emit_row(int row, const Sum* sum, const Emit& emit, std::index_sequence<J...>) {
  (emit(row, static_cast<int>(J), sum[J]), ...);
}

template <class Kind, int PANEL, class Emit, size_t... I, size_t... J, size_t... ALL>
RTI_INLINE void sums_of(const int32_t* rows, size_t pitch, const uint8_t* panel, int width, int steps, const Emit& emit,
                        std::index_sequence<I...>, std::index_sequence<J...> across, std::index_sequence<ALL...>) {
  typename Kind::Sum sum[] = {((void)ALL, Kind::zero())...};
  for (int s = 0; s < steps; ++s, panel += static_cast<size_t>(width) * 64) {
    const __m512i weights[PANEL] = {_mm512_loadu_si512(panel + J * 64)...};
    (add_row<Kind>(sum + I * PANEL, weights, rows[I * pitch + s], across), ...);
  }
  (emit_row(static_cast<int>(I), sum + I * PANEL, emit, across), ...);
}

// emit(row, vector, sum) for the sums [ROWS, PANEL vectors] of ``steps`` groups: rows ``pitch`` groups apart, a panel's groups
// ``width`` vectors apart.
template <class Kind, int ROWS, int PANEL, class Emit>
RTI_INLINE void sums(const int32_t* rows, size_t pitch, const uint8_t* panel, int width, int steps, const Emit& emit) {
  sums_of<Kind, PANEL>(rows, pitch, panel, width, steps, emit, std::make_index_sequence<ROWS>(), std::make_index_sequence<PANEL>(),
                       std::make_index_sequence<ROWS * PANEL>());
}

template <class Kind, int ROWS, class Store>
inline void tile(const Scratch& scratch, int first, const Linear& linear, int panel, const Store& store) {
  const int steps = linear.inputs / Kind::kGroup;
  const int32_t* rows = reinterpret_cast<const int32_t*>(scratch.rows) + static_cast<size_t>(first) * steps;
  const uint8_t* weights = linear.packed + static_cast<size_t>(panel) * steps * 256;
  sums<Kind, ROWS, 4>(rows, steps, weights, 4, steps, [&](int i, int j, typename Kind::Sum sum) RTI_INLINE_LAMBDA {
    const int column = panel * kPanel + j * kLanes;
    if (column >= linear.outputs) return;
    const __m512 bias = _mm512_loadu_ps(linear.bias + column);
    if constexpr (Kind::kGroup == 4) {
      const __m512i exact = _mm512_sub_epi32(sum, _mm512_set1_epi32(scratch.row_offset[first + i]));
      const __m512 scaled = _mm512_mul_ps(_mm512_cvtepi32_ps(exact), _mm512_set1_ps(scratch.row_scale[first + i]));
      store(first + i, column, fma(scaled, _mm512_loadu_ps(linear.scale + column), bias));
    } else {
      store(first + i, column, _mm512_add_ps(sum, bias));
    }
  });
}

// store(row, column, 16 outputs from that column on) of W x + b for the scratch's first ``count`` rows.
template <class Kind, class Store>
inline void product(const Scratch& scratch, int count, const Linear& linear, const Store& store) {
  const int panels = (linear.outputs + kPanel - 1) / kPanel;
  for (int panel = 0; panel < panels; ++panel) {
    int first = 0;
    for (; first + kTileRows <= count; first += kTileRows) tile<Kind, kTileRows>(scratch, first, linear, panel, store);
    switch (count - first) {
      case 1: tile<Kind, 1>(scratch, first, linear, panel, store); break;
      case 2: tile<Kind, 2>(scratch, first, linear, panel, store); break;
      case 3: tile<Kind, 3>(scratch, first, linear, panel, store); break;
      case 4: tile<Kind, 4>(scratch, first, linear, panel, store); break;
      case 5: tile<Kind, 5>(scratch, first, linear, panel, store); break;
      default: break;
    }
  }
}

// Row ``i`` of the scratch from 16-float pieces value(column): int8 by its own largest magnitude, or bfloat16.
template <class Kind, class Value>
inline void ready(Scratch& scratch, int i, int inputs, const Value& value) {
  if constexpr (Kind::kGroup == 4) {
    __m512 largest = _mm512_setzero_ps();
    for (int c = 0; c < inputs; c += kLanes) {
      const __m512 x = value(c);
      largest = _mm512_max_ps(largest, _mm512_abs_ps(x));
      _mm512_storeu_ps(scratch.line + c, x);
    }
    const float top = _mm512_reduce_max_ps(largest);
    const float scale = (top > 1e-10f ? top : 1e-10f) / 127.0f;
    const __m512 step = _mm512_set1_ps(scale);
    __m512i total = _mm512_setzero_si512();
    int8_t* out = reinterpret_cast<int8_t*>(scratch.rows) + static_cast<size_t>(i) * inputs;
    for (int c = 0; c < inputs; c += kLanes) {
      const __m512i q = _mm512_cvtps_epi32(_mm512_div_ps(_mm512_loadu_ps(scratch.line + c), step));
      total = _mm512_add_epi32(total, q);
      _mm_storeu_si128(reinterpret_cast<__m128i*>(out + c), _mm512_cvtsepi32_epi8(q));
    }
    scratch.row_scale[i] = scale;
    scratch.row_offset[i] = 128 * _mm512_reduce_add_epi32(total);
  } else {
    uint16_t* out = reinterpret_cast<uint16_t*>(scratch.rows) + static_cast<size_t>(i) * inputs;
    for (int c = 0; c < inputs; c += kLanes) _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + c), to_bfloat16(value(c)));
  }
}

struct Spread {
  __m512 mean, over_std;
};

inline Spread spread(const float* x, int width) {
  __m512 sum = _mm512_setzero_ps();
  for (int c = 0; c < width; c += kLanes) sum = _mm512_add_ps(sum, _mm512_loadu_ps(x + c));
  const __m512 mean = _mm512_set1_ps(_mm512_reduce_add_ps(sum) / width);
  __m512 squares = _mm512_setzero_ps();
  for (int c = 0; c < width; c += kLanes) {
    const __m512 away = _mm512_sub_ps(_mm512_loadu_ps(x + c), mean);
    squares = fma(away, away, squares);
  }
  const float variance = _mm512_reduce_add_ps(squares) / width + kEpsilon;
  return {mean, _mm512_div_ps(_mm512_set1_ps(1.0f), _mm512_sqrt_ps(_mm512_set1_ps(variance)))};
}

// Row ``i`` from LN(x) * scale + shift.
template <class Kind>
inline void ready_modulated(Scratch& scratch, int i, const float* x, const Spread& s, const float* shift, const float* scale, int width) {
  ready<Kind>(scratch, i, width, [&](int c) {
    const __m512 normal = _mm512_mul_ps(_mm512_sub_ps(_mm512_loadu_ps(x + c), s.mean), s.over_std);
    return fma(normal, _mm512_loadu_ps(scale + c), _mm512_loadu_ps(shift + c));
  });
}

}  // namespace rti::cpu
