// Vectors of processors with AVX-512 F, BW, VL, VNNI and BF16, and the two kinds of weights that those multiply.
#pragma once
#include <immintrin.h>

#include <cstdint>

#include "model.h"
#include "vector.h"

namespace rti::cpu {

struct Avx512 {
  using Floats = __m512;
  static RTI_INLINE Floats load(const float* p) { return _mm512_loadu_ps(p); }
  static RTI_INLINE void store(float* p, Floats x) { _mm512_storeu_ps(p, x); }
  // The first ``count`` of 16 alone; when they are read ``rest`` stands in the others' places.
  static RTI_INLINE Floats load_first(const float* p, int count, float rest) {
    return _mm512_mask_loadu_ps(all(rest), mask(count), p);
  }
  static RTI_INLINE void store_first(float* p, int count, Floats x) { _mm512_mask_storeu_ps(p, mask(count), x); }
  static RTI_INLINE Floats all(float x) { return _mm512_set1_ps(x); }
  static RTI_INLINE Floats zero() { return _mm512_setzero_ps(); }
  static RTI_INLINE Floats add(Floats a, Floats b) { return _mm512_add_ps(a, b); }
  static RTI_INLINE Floats sub(Floats a, Floats b) { return _mm512_sub_ps(a, b); }
  static RTI_INLINE Floats mul(Floats a, Floats b) { return _mm512_mul_ps(a, b); }
  static RTI_INLINE Floats div(Floats a, Floats b) { return _mm512_div_ps(a, b); }
  static RTI_INLINE Floats fma(Floats a, Floats b, Floats c) { return _mm512_fmadd_ps(a, b, c); }
  static RTI_INLINE Floats max(Floats a, Floats b) { return _mm512_max_ps(a, b); }
  static RTI_INLINE Floats abs(Floats x) { return _mm512_abs_ps(x); }
  static RTI_INLINE Floats nearest(Floats x) { return _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
  // x 2^whole.
  static RTI_INLINE Floats times_power(Floats x, Floats whole) { return _mm512_scalef_ps(x, whole); }
  static RTI_INLINE Floats where_positive(Floats x, Floats then, Floats otherwise) {
    return _mm512_mask_mov_ps(otherwise, _mm512_cmp_ps_mask(x, zero(), _CMP_GT_OQ), then);
  }
  static RTI_INLINE float sum(Floats x) { return _mm512_reduce_add_ps(x); }
  static RTI_INLINE float largest(Floats x) { return _mm512_reduce_max_ps(x); }
  static RTI_INLINE float root(float x) { return _mm_cvtss_f32(_mm_sqrt_ss(_mm_set_ss(x))); }

 private:
  static RTI_INLINE __mmask16 mask(int count) { return static_cast<__mmask16>((1u << count) - 1); }
};

struct Bfloat16 : Avx512 {
  static constexpr Layout kLayout = mixed_layout(Weights::kBfloat16);
  using Value = uint16_t;
  using Mixed = Bfloat16;
  using Sum = __m512;
  using Operand = __m512i;
  static RTI_INLINE Sum nothing() { return zero(); }
  static RTI_INLINE Operand weights_at(const uint8_t* p) { return _mm512_loadu_si512(p); }
  static RTI_INLINE Operand everywhere(const uint8_t* group) {
    return _mm512_set1_epi32(*reinterpret_cast<const int32_t*>(group));
  }
  static RTI_INLINE Sum dot(Sum sum, Operand weights, Operand rows) {
    return _mm512_dpbf16_ps(sum, reinterpret_cast<__m512bh>(weights), reinterpret_cast<__m512bh>(rows));
  }
  static RTI_INLINE Floats finish(Sum sum, const Scratch&, int, const Linear& linear, int column) {
    return add(sum, load(linear.bias + column));
  }

  static RTI_INLINE Floats exp2(Floats x) { return exp2_coarse<Avx512>(x); }
  static RTI_INLINE void write(Value* p, Floats x) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(x)));
  }
  static RTI_INLINE Floats read(const Value* p) {
    const __m512i wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
    return _mm512_castsi512_ps(_mm512_slli_epi32(wide, 16));
  }
  template <class Get>
  static RTI_INLINE void ready(Scratch& scratch, int i, int inputs, const Get& value) {
    Value* out = reinterpret_cast<Value*>(scratch.rows) + static_cast<size_t>(i) * inputs;
    for (int c = 0; c < inputs; c += kLanes) write(out + c, value(c));
  }
};

struct Int8 : Avx512 {
  static constexpr Layout kLayout = layout(Weights::kInt8);
  using Mixed = Bfloat16;
  using Sum = __m512i;
  using Operand = __m512i;
  static RTI_INLINE Sum nothing() { return _mm512_setzero_si512(); }
  static RTI_INLINE Operand weights_at(const uint8_t* p) { return _mm512_loadu_si512(p); }
  static RTI_INLINE Operand everywhere(const uint8_t* group) {
    return _mm512_set1_epi32(*reinterpret_cast<const int32_t*>(group));
  }
  static RTI_INLINE Sum dot(Sum sum, Operand weights, Operand rows) { return _mm512_dpbusd_epi32(sum, weights, rows); }
  static RTI_INLINE Floats finish(Sum sum, const Scratch& scratch, int row, const Linear& linear, int column) {
    const __m512i exact = _mm512_sub_epi32(sum, _mm512_set1_epi32(scratch.row_offset[row]));
    const __m512 scaled = mul(_mm512_cvtepi32_ps(exact), all(scratch.row_scale[row]));
    return fma(scaled, load(linear.scale + column), load(linear.bias + column));
  }

  // By the row's own largest magnitude.
  template <class Get>
  static RTI_INLINE void ready(Scratch& scratch, int i, int inputs, const Get& value) {
    Floats peak = zero();
    for (int c = 0; c < inputs; c += kLanes) {
      const Floats x = value(c);
      peak = max(peak, abs(x));
      store(scratch.line + c, x);
    }
    const float top = largest(peak);
    const float scale = (top > 1e-10f ? top : 1e-10f) / 127.0f;
    __m512i total = _mm512_setzero_si512();
    int8_t* out = reinterpret_cast<int8_t*>(scratch.rows) + static_cast<size_t>(i) * inputs;
    for (int c = 0; c < inputs; c += kLanes) {
      const __m512i q = _mm512_cvtps_epi32(div(load(scratch.line + c), all(scale)));
      total = _mm512_add_epi32(total, q);
      _mm_storeu_si128(reinterpret_cast<__m128i*>(out + c), _mm512_cvtsepi32_epi8(q));
    }
    scratch.row_scale[i] = scale;
    scratch.row_offset[i] = 128 * _mm512_reduce_add_epi32(total);
  }
};

}  // namespace rti::cpu
