// Two things that a tick must not ask the system for: what time it is, and to have memory at hand.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>

#if defined(__x86_64__) || defined(__i386__) || defined(_M_X64) || defined(_M_IX86)
#  define RTI_X86 1
#  if defined(_MSC_VER)
#    include <intrin.h>
#  else
#    include <x86intrin.h>
#  endif
#endif

namespace rti {

constexpr std::size_t kLine = 64;

inline std::int64_t now_ns() noexcept {
    return std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// A count that runs at a constant rate, the same on all cores. The processor's own costs no memory; elsewhere nanoseconds.
inline std::int64_t now_ticks() noexcept {
#if defined(RTI_X86)
    return static_cast<std::int64_t>(__rdtsc());
#else
    return now_ns();
#endif
}

// How long a tick is, told by two clocks since this was made.
class TickRate {
public:
    TickRate() noexcept : ns_(now_ns()), ticks_(now_ticks()) {}
    double ns_per_tick() const noexcept {
        const auto ticks = static_cast<double>(now_ticks() - ticks_);
        return ticks > 0 ? static_cast<double>(now_ns() - ns_) / ticks : 1;
    }

private:
    std::int64_t ns_, ticks_;
};

// Into its caller, always: a function apart would be one more place to fetch code from.
#if defined(_MSC_VER)
#  define RTI_INLINE __forceinline
#elif defined(__GNUC__)
#  define RTI_INLINE __attribute__((always_inline)) inline
#else
#  define RTI_INLINE inline
#endif

RTI_INLINE void fetch_line(const char* at) noexcept {
#if defined(RTI_X86)
    _mm_prefetch(at, _MM_HINT_T0);
#elif defined(__GNUC__)
    __builtin_prefetch(at);
#else
    (void)at;
#endif
}

// Begin to fetch memory that is soon touched, and what little lies behind it: harmless where it is not.
RTI_INLINE void fetch(const void* from, std::size_t bytes) noexcept {
    const char* at = static_cast<const char*>(from);
    for (const char* end = at + bytes; at < end; at += 4 * kLine) {
        fetch_line(at);
        fetch_line(at + kLine);
        fetch_line(at + 2 * kLine);
        fetch_line(at + 3 * kLine);
    }
}

RTI_INLINE void fetch_to(const void* from, const void* end) noexcept {
    fetch(from, static_cast<std::size_t>(static_cast<const char*>(end) - static_cast<const char*>(from)));
}

// What every tick runs is compiled for AVX2 and FMA too, and the loader takes what the processor has: a fifth fewer instructions.
// Not what the library exports (RTI_GATE): the choice would be exported beside it. Sanitizers start after the loader, which would
// call into them.
#if defined(__GNUC__) && !defined(__clang__) && defined(__x86_64__) && defined(__GLIBC__) && !defined(__AVX2__) && \
    !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__) && __GNUC__ >= 12
#  define RTI_TWICE __attribute__((target_clones("default", "arch=x86-64-v3")))
#else
#  define RTI_TWICE
#endif

// What every tick runs stands together, so does what only runs when a plan has come. Of a tick's code one line a page is asked for
// ahead, for the sake of its address: asking for all lines takes longer than waiting for those that are needed.
#if defined(__GNUC__) && defined(__ELF__)
#  define RTI_GATE __attribute__((section("rti_tick")))
#  define RTI_TICK RTI_GATE RTI_TWICE
#  define RTI_SEAM __attribute__((section("rti_seam")))
extern "C" const char __start_rti_tick[], __stop_rti_tick[], __start_rti_seam[], __stop_rti_seam[];
RTI_INLINE void fetch_pages(const char* from, const char* end) noexcept {
    for (; from < end; from += 4096) fetch_line(from);
}
RTI_INLINE void fetch_tick_code() noexcept { fetch_pages(__start_rti_tick, __stop_rti_tick); }
RTI_INLINE void fetch_seam_code() noexcept { fetch_pages(__start_rti_seam, __stop_rti_seam); }
#else
#  define RTI_GATE
#  define RTI_TICK
#  define RTI_SEAM
inline void fetch_tick_code() noexcept {}
inline void fetch_seam_code() noexcept {}
#endif

}  // namespace rti
