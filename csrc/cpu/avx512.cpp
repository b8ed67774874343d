// The phases of a pass for processors with AVX-512 F, BW, VL, VNNI and BF16. Nothing of the standard library is included, and what
// other files include too comes before the target: what the linker merges between files must not be compiled for instructions that
// a user's processor may lack.
#include "model.h"
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512bf16"))), apply_to = function)
#elif defined(__GNUC__)
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512bf16")
// GCC 12 takes its own header's undefined pass-through operands for mistakes.
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"
#endif
#include "avx512.h"
#include "phases.h"

namespace rti::cpu {

const Phases kInt8Phases = phases<Int8>();
const Phases kBfloat16Phases = phases<Bfloat16>();

}  // namespace rti::cpu
#if defined(__clang__)
#pragma clang attribute pop
#endif
