// Vectors of 16 floats: what the kernels need beyond the instructions themselves. AVX-512 F, BW, VL, VNNI and BF16.
#pragma once
#include <immintrin.h>

#include <cstdint>

#if defined(_MSC_VER)
#define RTI_INLINE __forceinline
#define RTI_INLINE_LAMBDA
#else
#define RTI_INLINE inline __attribute__((always_inline))
#define RTI_INLINE_LAMBDA __attribute__((always_inline))
#endif

namespace rti::cpu {

inline __m512 fma(__m512 a, __m512 b, __m512 c) { return _mm512_fmadd_ps(a, b, c); }

// 2^x by its Taylor series around the nearest whole number: relative error 4e-5, a fiftieth of a bfloat16's step.
inline __m512 exp2_coarse(__m512 x) {
  const __m512 whole = _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  const __m512 f = _mm512_sub_ps(x, whole);
  __m512 p = _mm512_set1_ps(9.6181291e-3f);
  p = fma(p, f, _mm512_set1_ps(5.5504109e-2f));
  p = fma(p, f, _mm512_set1_ps(2.4022651e-1f));
  p = fma(p, f, _mm512_set1_ps(6.9314718e-1f));
  p = fma(p, f, _mm512_set1_ps(1.0f));
  return _mm512_scalef_ps(p, whole);
}

// The same to float32's own precision.
inline __m512 exp2_fine(__m512 x) {
  const __m512 whole = _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  const __m512 f = _mm512_sub_ps(x, whole);
  __m512 p = _mm512_set1_ps(1.5403530e-4f);
  p = fma(p, f, _mm512_set1_ps(1.3333558e-3f));
  p = fma(p, f, _mm512_set1_ps(9.6181291e-3f));
  p = fma(p, f, _mm512_set1_ps(5.5504109e-2f));
  p = fma(p, f, _mm512_set1_ps(2.4022651e-1f));
  p = fma(p, f, _mm512_set1_ps(6.9314718e-1f));
  p = fma(p, f, _mm512_set1_ps(1.0f));
  return _mm512_scalef_ps(p, whole);
}

// x Phi(x), with the error function of Abramowitz and Stegun 7.1.26 (absolute error 1.5e-7).
inline __m512 gelu(__m512 x) {
  const __m512 z = _mm512_mul_ps(_mm512_abs_ps(x), _mm512_set1_ps(0.70710678f));
  const __m512 t = _mm512_div_ps(_mm512_set1_ps(1.0f), fma(z, _mm512_set1_ps(0.3275911f), _mm512_set1_ps(1.0f)));
  __m512 p = _mm512_set1_ps(1.061405429f);
  p = fma(p, t, _mm512_set1_ps(-1.453152027f));
  p = fma(p, t, _mm512_set1_ps(1.421413741f));
  p = fma(p, t, _mm512_set1_ps(-0.284496736f));
  p = fma(p, t, _mm512_set1_ps(0.254829592f));
  const __m512 decay = exp2_fine(_mm512_mul_ps(_mm512_mul_ps(z, z), _mm512_set1_ps(-1.44269504f)));
  const __m512 beyond = _mm512_mul_ps(_mm512_mul_ps(_mm512_mul_ps(p, t), decay), _mm512_mul_ps(x, _mm512_set1_ps(0.5f)));
  const __mmask16 positive = _mm512_cmp_ps_mask(x, _mm512_setzero_ps(), _CMP_GT_OQ);
  return _mm512_mask_sub_ps(beyond, positive, x, beyond);
}

inline __m256i to_bfloat16(__m512 x) { return reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(x)); }

inline __m512 from_bfloat16(const uint16_t* p) {
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))), 16));
}

}  // namespace rti::cpu
