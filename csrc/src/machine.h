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

// Begin to fetch memory that is soon touched; harmless where it is not.
inline void fetch(const void* from, std::size_t bytes) noexcept {
    const char* at = static_cast<const char*>(from);
    for (std::size_t i = 0; i < bytes; i += kLine) {
#if defined(RTI_X86)
        _mm_prefetch(at + i, _MM_HINT_T0);
#elif defined(__GNUC__)
        __builtin_prefetch(at + i);
#else
        (void)at;
#endif
    }
}

// What a tick runs stands together, and can then be fetched at once: out of the caches it would come line by line.
#if defined(__GNUC__) && defined(__ELF__)
#  define RTI_TICK __attribute__((section("rti_tick")))
extern "C" const char __start_rti_tick[], __stop_rti_tick[];
inline void fetch_code() noexcept { fetch(__start_rti_tick, static_cast<std::size_t>(__stop_rti_tick - __start_rti_tick)); }
#else
#  define RTI_TICK
inline void fetch_code() noexcept {}
#endif

}  // namespace rti
