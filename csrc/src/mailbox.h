// The newest value from one writer to one reader: older ones are dropped unread. Three slots, so that neither ever waits.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>

namespace rti {

template <class T>
class Mailbox {
public:
    Mailbox() : slots_(std::make_unique<T[]>(3)) {}

    // The writer's slot: fill it, then publish().
    T& draft() noexcept { return slots_[writer_]; }

    void publish() noexcept { writer_ = shared_.exchange(writer_ | kFresh, std::memory_order_acq_rel) & kIndex; }

    // Whether take() would give something new. Any thread.
    bool fresh() const noexcept { return (shared_.load(std::memory_order_acquire) & kFresh) != 0; }

    // The newest value, or null when nothing came since the last call. It stays the reader's until the next one.
    const T* take() noexcept {
        if (!fresh()) return nullptr;
        reader_ = shared_.exchange(reader_, std::memory_order_acq_rel) & kIndex;
        return &slots_[reader_];
    }

private:
    static constexpr std::uint32_t kIndex = 3, kFresh = 4;

    std::unique_ptr<T[]> slots_;
    std::uint32_t writer_ = 0;
    std::atomic<std::uint32_t> shared_{1};
    std::uint32_t reader_ = 2;
};

}  // namespace rti
