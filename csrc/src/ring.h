// Poses from one pushing thread to the worker, newest kept: a full ring overwrites its oldest slot and the reader counts the loss.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <vector>

#include "machine.h"

namespace rti {

// One pose as it was pushed: root [3], then rotations [J][4], in the engine's axes.
struct Sample {
    double time = 0;
    std::uint64_t epoch = 0;
    std::int64_t pushed = 0;  // by now_ticks()
    std::vector<float> values;
};

// Single producer, single consumer, and any number of threads that peek at the newest. Each slot is a sequence lock whose payload
// is made of atomic words, because a reader may look at a slot while it is overwritten and must then be able to tell.
class PoseRing {
public:
    // `capacity` slots, a power of two.
    PoseRing(std::size_t joints, std::size_t capacity)
        : words_(kPlace + 2 * joints), mask_(capacity - 1),
          slots_(std::make_unique<std::atomic<std::uint64_t>[]>(capacity * words_)) {
        for (std::size_t i = 0; i < capacity * words_; ++i) slots_[i].store(0, std::memory_order_relaxed);
    }

    // Begin to fetch the slot of the next push.
    void prepare() const noexcept { fetch(at(written_.load(std::memory_order_relaxed)), words_ * sizeof(std::uint64_t)); }

    void push(double time, std::uint64_t epoch, std::int64_t now, const float* root, const float* rotations) noexcept {
        const std::uint64_t index = written_.load(std::memory_order_relaxed);
        std::atomic<std::uint64_t>* slot = at(index);
        slot[0].store(2 * index + 1, std::memory_order_relaxed);
        put(slot[1], &time);
        slot[2].store(epoch, std::memory_order_release);
        put(slot[3], &now);
        const float there[4] = {root[0], root[1], root[2], 0};
        for (std::size_t i = 0; i < 2; ++i) put(slot[kHead + i], there + 2 * i);
        std::atomic<std::uint64_t>*at = slot + kPlace, *const end = slot + words_;
        for (; end - at >= 8; at += 8, rotations += 16) {
            put(at[0], rotations), put(at[1], rotations + 2), put(at[2], rotations + 4), put(at[3], rotations + 6);
            put(at[4], rotations + 8), put(at[5], rotations + 10), put(at[6], rotations + 12), put(at[7], rotations + 14);
        }
        for (; at < end; ++at, rotations += 2) put(*at, rotations);
        slot[0].store(2 * index + 2, std::memory_order_release);
        written_.store(index + 1, std::memory_order_release);
    }

    // The oldest sample not yet read; false when there is none. `lost` grows by those that were overwritten. The consumer.
    bool pop(Sample& out, std::uint64_t& lost) noexcept {
        for (;;) {
            const std::uint64_t end = written_.load(std::memory_order_acquire);
            if (read_ == end) return false;
            if (end - read_ > mask_ + 1) {
                lost += end - read_ - (mask_ + 1);
                read_ = end - (mask_ + 1);
            }
            if (copy(read_++, out)) return true;
            ++lost;
        }
    }

    // The newest sample, without taking it. Any thread; false when there is none or the producer laps the reader.
    bool newest(Sample& out) const noexcept {
        for (int attempt = 0; attempt < 4; ++attempt) {
            const std::uint64_t end = written_.load(std::memory_order_acquire);
            if (end == 0) return false;
            if (copy(end - 1, out)) return true;
        }
        return false;
    }

    std::uint64_t written() const noexcept { return written_.load(std::memory_order_acquire); }

private:
    // Sequence, time, epoch and moment of the push; the root in two words; then two floats of the rotations in each.
    static constexpr std::size_t kHead = 4, kPlace = 6;

    std::atomic<std::uint64_t>* at(std::uint64_t index) const noexcept {
        return &slots_[static_cast<std::size_t>(index & mask_) * words_];
    }

    // Release and acquire on every word stand in for fences, which thread sanitizers do not follow.
    static void put(std::atomic<std::uint64_t>& word, const void* eight_bytes) noexcept {
        std::uint64_t bits;
        std::memcpy(&bits, eight_bytes, sizeof bits);
        word.store(bits, std::memory_order_release);
    }

    static void get(const std::atomic<std::uint64_t>& word, void* eight_bytes) noexcept {
        const std::uint64_t bits = word.load(std::memory_order_acquire);
        std::memcpy(eight_bytes, &bits, sizeof bits);
    }

    bool copy(std::uint64_t index, Sample& out) const noexcept {
        const std::atomic<std::uint64_t>* slot = at(index);
        const std::uint64_t want = 2 * index + 2;
        if (slot[0].load(std::memory_order_acquire) != want) return false;
        get(slot[1], &out.time);
        out.epoch = slot[2].load(std::memory_order_acquire);
        get(slot[3], &out.pushed);
        float there[4];
        for (std::size_t i = 0; i < 2; ++i) get(slot[kHead + i], there + 2 * i);
        std::copy_n(there, 3, out.values.data());
        for (std::size_t i = 0; i < words_ - kPlace; ++i) get(slot[kPlace + i], out.values.data() + 3 + 2 * i);
        return slot[0].load(std::memory_order_relaxed) == want;
    }

    // All that a push needs, in one line.
    alignas(kLine) const std::size_t words_;
    const std::uint64_t mask_;
    std::unique_ptr<std::atomic<std::uint64_t>[]> slots_;
    std::atomic<std::uint64_t> written_{0};
    alignas(kLine) std::uint64_t read_ = 0;
};

}  // namespace rti
