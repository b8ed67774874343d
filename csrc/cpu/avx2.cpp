// The phases of a pass for processors with AVX2 and FMA, float32. What it includes, and in which order, is as in avx512.cpp.
#include "model.h"
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#elif defined(__GNUC__)
#pragma GCC target("avx2,fma")
#endif
#include "avx2.h"
#include "phases.h"

namespace rti::cpu {

const Phases kFloat32Phases = phases<Float32>();

}  // namespace rti::cpu
#if defined(__clang__)
#pragma clang attribute pop
#endif
