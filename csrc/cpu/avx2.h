// Vectors of processors with AVX2 and FMA, each two of the processor's own, and float32 weights.
#pragma once
#include <immintrin.h>

#include <cstdint>

#include "model.h"
#include "vector.h"

namespace rti::cpu {

struct Avx2 {
  struct Floats {
    __m256 low, high;
  };
  static RTI_INLINE Floats load(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
  static RTI_INLINE void store(float* p, Floats x) {
    _mm256_storeu_ps(p, x.low);
    _mm256_storeu_ps(p + 8, x.high);
  }
  // The first ``count`` of 16 alone; when they are read ``rest`` stands in the others' places.
  static RTI_INLINE Floats load_first(const float* p, int count, float rest) {
    const __m256 other = _mm256_set1_ps(rest);
    return {_mm256_blendv_ps(other, _mm256_maskload_ps(p, mask(count)), _mm256_castsi256_ps(mask(count))),
            _mm256_blendv_ps(other, _mm256_maskload_ps(p + 8, mask(count - 8)), _mm256_castsi256_ps(mask(count - 8)))};
  }
  static RTI_INLINE void store_first(float* p, int count, Floats x) {
    _mm256_maskstore_ps(p, mask(count), x.low);
    _mm256_maskstore_ps(p + 8, mask(count - 8), x.high);
  }
  static RTI_INLINE Floats all(float x) { return {_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
  static RTI_INLINE Floats zero() { return {_mm256_setzero_ps(), _mm256_setzero_ps()}; }
  static RTI_INLINE Floats add(Floats a, Floats b) { return {_mm256_add_ps(a.low, b.low), _mm256_add_ps(a.high, b.high)}; }
  static RTI_INLINE Floats sub(Floats a, Floats b) { return {_mm256_sub_ps(a.low, b.low), _mm256_sub_ps(a.high, b.high)}; }
  static RTI_INLINE Floats mul(Floats a, Floats b) { return {_mm256_mul_ps(a.low, b.low), _mm256_mul_ps(a.high, b.high)}; }
  static RTI_INLINE Floats div(Floats a, Floats b) { return {_mm256_div_ps(a.low, b.low), _mm256_div_ps(a.high, b.high)}; }
  static RTI_INLINE Floats fma(Floats a, Floats b, Floats c) {
    return {_mm256_fmadd_ps(a.low, b.low, c.low), _mm256_fmadd_ps(a.high, b.high, c.high)};
  }
  static RTI_INLINE Floats max(Floats a, Floats b) { return {_mm256_max_ps(a.low, b.low), _mm256_max_ps(a.high, b.high)}; }
  static RTI_INLINE Floats abs(Floats x) {
    const __m256 sign = _mm256_set1_ps(-0.0f);
    return {_mm256_andnot_ps(sign, x.low), _mm256_andnot_ps(sign, x.high)};
  }
  static RTI_INLINE Floats nearest(Floats x) {
    constexpr int mode = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
    return {_mm256_round_ps(x.low, mode), _mm256_round_ps(x.high, mode)};
  }
  // x 2^whole, for a ``whole`` of at most 127; what would be less than the smallest normal number is zero.
  static RTI_INLINE Floats times_power(Floats x, Floats whole) {
    return mul(x, {power(whole.low), power(whole.high)});
  }
  static RTI_INLINE Floats where_positive(Floats x, Floats then, Floats otherwise) {
    const __m256 none = _mm256_setzero_ps();
    return {_mm256_blendv_ps(otherwise.low, then.low, _mm256_cmp_ps(x.low, none, _CMP_GT_OQ)),
            _mm256_blendv_ps(otherwise.high, then.high, _mm256_cmp_ps(x.high, none, _CMP_GT_OQ))};
  }
  static RTI_INLINE float sum(Floats x) {
    const __m256 eight = _mm256_add_ps(x.low, x.high);
    const __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
  }
  static RTI_INLINE float largest(Floats x) {
    const __m256 eight = _mm256_max_ps(x.low, x.high);
    const __m128 four = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    const __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)));
  }
  static RTI_INLINE float root(float x) { return _mm_cvtss_f32(_mm_sqrt_ss(_mm_set_ss(x))); }

 private:
  static RTI_INLINE __m256i mask(int count) {
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(count), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
  }
  static RTI_INLINE __m256 power(__m256 whole) {
    const __m256i exponent = _mm256_cvtps_epi32(_mm256_max_ps(whole, _mm256_set1_ps(-127.0f)));
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(exponent, _mm256_set1_epi32(127)), 23));
  }
};

struct Float32 : Avx2 {
  static constexpr Layout kLayout = layout(Weights::kFloat32);
  using Value = float;
  using Mixed = Float32;
  using Sum = Floats;
  using Operand = Floats;
  static RTI_INLINE Sum nothing() { return zero(); }
  static RTI_INLINE Operand weights_at(const uint8_t* p) { return load(reinterpret_cast<const float*>(p)); }
  static RTI_INLINE __m256 everywhere(const uint8_t* group) { return _mm256_broadcast_ss(reinterpret_cast<const float*>(group)); }
  static RTI_INLINE Sum dot(Sum sum, Operand weights, __m256 rows) {
    return {_mm256_fmadd_ps(weights.low, rows, sum.low), _mm256_fmadd_ps(weights.high, rows, sum.high)};
  }
  static RTI_INLINE Floats finish(Sum sum, const Scratch&, int, const Linear& linear, int column) {
    return add(sum, load(linear.bias + column));
  }

  static RTI_INLINE Floats exp2(Floats x) { return exp2_fine<Avx2>(x); }
  static RTI_INLINE void write(Value* p, Floats x) { store(p, x); }
  static RTI_INLINE Floats read(const Value* p) { return load(p); }
  template <class Get>
  static RTI_INLINE void ready(Scratch& scratch, int i, int inputs, const Get& value) {
    Value* out = reinterpret_cast<Value*>(scratch.rows) + static_cast<size_t>(i) * inputs;
    for (int c = 0; c < inputs; c += kLanes) store(out + c, value(c));
  }
};

}  // namespace rti::cpu
