// Functions of vectors of 16 floats, of any kind of processor: `Machine` has the vector and what the processor does with it.
#pragma once
#include <cstdint>

#if defined(_MSC_VER)
#define RTI_INLINE __forceinline
#define RTI_INLINE_LAMBDA
#else
#define RTI_INLINE inline __attribute__((always_inline))
#define RTI_INLINE_LAMBDA __attribute__((always_inline))
#endif

namespace rti::cpu {

// 2^x by its Taylor series around the nearest whole number: relative error 4e-5, a fiftieth of a bfloat16's step.
template <class Machine>
RTI_INLINE typename Machine::Floats exp2_coarse(typename Machine::Floats x) {
  const auto whole = Machine::nearest(x);
  const auto f = Machine::sub(x, whole);
  auto p = Machine::all(9.6181291e-3f);
  p = Machine::fma(p, f, Machine::all(5.5504109e-2f));
  p = Machine::fma(p, f, Machine::all(2.4022651e-1f));
  p = Machine::fma(p, f, Machine::all(6.9314718e-1f));
  p = Machine::fma(p, f, Machine::all(1.0f));
  return Machine::times_power(p, whole);
}

// The same to float32's own precision.
template <class Machine>
RTI_INLINE typename Machine::Floats exp2_fine(typename Machine::Floats x) {
  const auto whole = Machine::nearest(x);
  const auto f = Machine::sub(x, whole);
  auto p = Machine::all(1.5403530e-4f);
  p = Machine::fma(p, f, Machine::all(1.3333558e-3f));
  p = Machine::fma(p, f, Machine::all(9.6181291e-3f));
  p = Machine::fma(p, f, Machine::all(5.5504109e-2f));
  p = Machine::fma(p, f, Machine::all(2.4022651e-1f));
  p = Machine::fma(p, f, Machine::all(6.9314718e-1f));
  p = Machine::fma(p, f, Machine::all(1.0f));
  return Machine::times_power(p, whole);
}

// x Phi(x), with the error function of Abramowitz and Stegun 7.1.26 (absolute error 1.5e-7).
template <class Machine>
RTI_INLINE typename Machine::Floats gelu(typename Machine::Floats x) {
  const auto one = Machine::all(1.0f);
  const auto z = Machine::mul(Machine::abs(x), Machine::all(0.70710678f));
  const auto t = Machine::div(one, Machine::fma(z, Machine::all(0.3275911f), one));
  auto p = Machine::all(1.061405429f);
  p = Machine::fma(p, t, Machine::all(-1.453152027f));
  p = Machine::fma(p, t, Machine::all(1.421413741f));
  p = Machine::fma(p, t, Machine::all(-0.284496736f));
  p = Machine::fma(p, t, Machine::all(0.254829592f));
  const auto decay = exp2_fine<Machine>(Machine::mul(Machine::mul(z, z), Machine::all(-1.44269504f)));
  const auto beyond = Machine::mul(Machine::mul(Machine::mul(p, t), decay), Machine::mul(x, Machine::all(0.5f)));
  return Machine::where_positive(x, Machine::sub(x, beyond), beyond);
}

}  // namespace rti::cpu
