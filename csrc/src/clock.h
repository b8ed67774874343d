// The engine's clock to the model's: poses at any times become frames at 30 Hz.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>

#include "pose.h"

namespace rti {

// Frames lie every 1/30 s; a pose between two samples is interpolated. A gap of more than kGap_s (a pause, a loading screen) is not
// filled: the frames go on at the new time. Columns of kColumn frames begin at fixed times of the engine's clock, the first pose held
// back to there, and those of sessions with successive numbers lie as far apart as can be: sessions that hop at once wait for all of
// them, whichever way they are planned. One thread.
class Resampler {
public:
    static constexpr double kGap_s = 1.0;
    static constexpr int kColumn = 4;
    // A clock that adds up steps of 1/30 s falls short of its frames by rounding; they must not wait for the next tick.
    static constexpr double kSlack_s = 1e-6;
    static constexpr std::size_t kCapacity = 256;

    explicit Resampler(std::uint64_t number = 0) noexcept {
        constexpr int kSpread[kColumn] = {0, 2, 1, 3};
        phase_ = kSpread[number % kColumn];
    }

    // Forget everything; the next sample begins anew.
    void reset() noexcept {
        started_ = false;
        count_ = 0;
    }

    // A pose at engine time `time_s`, not earlier than the last one unless the clock was set back by more than kGap_s. `mark` goes
    // with the frames that it completes.
    void add(double time_s, const ModelPose& pose, std::int64_t mark) noexcept {
        if (!started_ || time_s - last_time_ > kGap_s || time_s < last_time_ - kGap_s) {
            jumps_ += started_ ? 1 : 0;
            const double columns = std::floor(((time_s + kSlack_s) * kFps - phase_) / kColumn);
            anchor_ = (columns * kColumn + phase_) / kFps;
            frame_ = 0;
            started_ = true;
            for (int i = 0; i < kColumn && next_time() <= time_s + kSlack_s; ++i) emit(pose, mark);
        } else if (time_s > last_time_) {
            while (next_time() <= time_s + kSlack_s) {
                const double t = std::clamp((next_time() - last_time_) / (time_s - last_time_), 0.0, 1.0);
                emit(between(last_, pose, static_cast<float>(t)), mark);
            }
        }
        last_ = pose;
        last_time_ = time_s;
    }

    std::size_t ready() const noexcept { return count_; }

    // The oldest `frames` frames, which must be ready, and the mark of the last; returns the engine time of the frame that follows.
    double take(std::size_t frames, ModelPose* out, std::int64_t& mark) noexcept {
        double last = 0;
        for (std::size_t i = 0; i < frames; ++i) {
            const Frame& frame = queue_[(begin_ + i) % kCapacity];
            out[i] = frame.pose;
            last = frame.time;
            mark = frame.mark;
        }
        skip(frames);
        return last + 1 / kFps;
    }

    void skip(std::size_t frames) noexcept {
        begin_ = (begin_ + frames) % kCapacity;
        count_ -= frames;
    }

    std::uint64_t jumps() const noexcept { return jumps_; }
    // Frames that did not fit the queue.
    std::uint64_t overflowed() const noexcept { return overflowed_; }

private:
    struct Frame {
        double time;
        std::int64_t mark;
        ModelPose pose;
    };

    double next_time() const noexcept { return anchor_ + static_cast<double>(frame_) / kFps; }

    static ModelPose between(const ModelPose& a, const ModelPose& b, float t) noexcept {
        ModelPose out;
        out.root = lerp(a.root, b.root, t);
        for (int j = 0; j < kJoints; ++j) out.local[j] = slerp(a.local[j], b.local[j], t);
        return out;
    }

    void emit(const ModelPose& pose, std::int64_t mark) noexcept {
        if (count_ == kCapacity) {
            skip(1);
            ++overflowed_;
        }
        queue_[(begin_ + count_++) % kCapacity] = {next_time(), mark, pose};
        ++frame_;
    }

    int phase_ = 0;
    bool started_ = false;
    double anchor_ = 0, last_time_ = 0;
    std::uint64_t frame_ = 0, jumps_ = 0, overflowed_ = 0;
    ModelPose last_;
    std::array<Frame, kCapacity> queue_;
    std::size_t begin_ = 0, count_ = 0;
};

}  // namespace rti
