// Durations of one thread, read by any: 16 buckets an octave, so a percentile is right within 3 %.
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "machine.h"

namespace rti {

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
    // In any unit; below 1 counts as 1, and 2^30 or more as that.
    void add(std::int64_t duration) noexcept {
        Counter& at = buckets_[bucket(duration)];
        at.add();
        last_.store(&at, std::memory_order_relaxed);
    }

    // Begin to fetch what the next add() is likely to touch. Any thread.
    void prepare() const noexcept { fetch_line(reinterpret_cast<const char*>(last_.load(std::memory_order_relaxed))); }

    // p50, p95 and p99 in units of which one that was added holds `scale`; zeros when nothing was added.
    void percentiles(double scale, double out[3]) const noexcept {
        static constexpr double kAt[3] = {0.50, 0.95, 0.99};
        std::uint64_t total = 0;
        for (const Counter& b : buckets_) total += b.get();
        for (int i = 0; i < 3; ++i) {
            out[i] = 0;
            auto left = static_cast<std::int64_t>(kAt[i] * static_cast<double>(total));
            for (std::size_t b = 0; total != 0 && b < buckets_.size(); ++b) {
                left -= static_cast<std::int64_t>(buckets_[b].get());
                if (left < 0) {
                    out[i] = middle(b) * scale;
                    break;
                }
            }
        }
    }

private:
    static constexpr std::size_t kOctaves = 30, kPerOctave = 16, kBuckets = kOctaves * kPerOctave;
    // A float's bits are its octave, then how far into it: the upper ones are the bucket.
    static constexpr std::uint32_t kOne = 0x3f800000u, kShift = 23 - 4;

    static std::size_t bucket(std::int64_t duration) noexcept {
        const auto value = static_cast<float>(duration < 1 ? 1 : duration);
        std::uint32_t bits;
        std::memcpy(&bits, &value, sizeof bits);
        return std::min<std::size_t>((bits - kOne) >> kShift, kBuckets - 1);
    }

    static double middle(std::size_t bucket) noexcept {
        const std::uint32_t bits = (static_cast<std::uint32_t>(bucket) << kShift) + (1u << (kShift - 1)) + kOne;
        float value;
        std::memcpy(&value, &bits, sizeof value);
        return static_cast<double>(value);
    }

    std::atomic<const Counter*> last_{nullptr};
    std::array<Counter, kBuckets> buckets_{};
};

}  // namespace rti
