// Durations of one thread, read by any: 32 buckets an octave, so a percentile is right within 3 %.
#pragma once

#include <array>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>

namespace rti {

inline std::int64_t now_ns() noexcept {
    return std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// A counter with one writer: no locked instruction is needed to add to it.
class Counter {
public:
    void add(std::uint64_t n = 1) noexcept { value_.store(value_.load(std::memory_order_relaxed) + n, std::memory_order_relaxed); }
    std::uint64_t get() const noexcept { return value_.load(std::memory_order_relaxed); }

private:
    std::atomic<std::uint64_t> value_{0};
};

class Histogram {
public:
    void add(std::int64_t ns) noexcept {
        const auto value = static_cast<std::uint64_t>(ns < 0 ? 0 : ns);
        buckets_[bucket(value)].add();
    }

    // Microseconds at p50, p95 and p99; zeros when nothing was added.
    void percentiles(double out[3]) const noexcept {
        static constexpr double kAt[3] = {0.50, 0.95, 0.99};
        std::uint64_t total = 0;
        for (const Counter& b : buckets_) total += b.get();
        for (int i = 0; i < 3; ++i) {
            out[i] = 0;
            auto left = static_cast<std::int64_t>(kAt[i] * static_cast<double>(total));
            for (std::size_t b = 0; total != 0 && b < buckets_.size(); ++b) {
                left -= static_cast<std::int64_t>(buckets_[b].get());
                if (left < 0) {
                    out[i] = middle(b) * 1e-3;
                    break;
                }
            }
        }
    }

private:
    static constexpr std::size_t kBits = 5, kPerOctave = 1u << kBits, kOctaves = 36;

    static std::size_t bucket(std::uint64_t v) noexcept {
        std::size_t octave = 0;
        while ((v >> octave) >= 2 * kPerOctave && octave + 1 < kOctaves) ++octave;
        const auto within = static_cast<std::size_t>(v >> octave);
        return octave * kPerOctave + (within < 2 * kPerOctave ? within : 2 * kPerOctave - 1);
    }

    // Values under 2 * kPerOctave ns have a bucket each; an octave above starts at kPerOctave.
    static double middle(std::size_t b) noexcept {
        const std::size_t octave = b < 2 * kPerOctave ? 0 : b / kPerOctave - 1;
        const std::size_t within = b - octave * kPerOctave;
        return (static_cast<double>(within) + 0.5) * static_cast<double>(std::uint64_t{1} << octave);
    }

    std::array<Counter, (kOctaves + 1) * kPerOctave> buckets_{};
};

}  // namespace rti
