// Inertialised blending: at a seam the difference between what was shown and what comes next is kept and let die away, so the
// pose has no jump and its velocity none either, and both plans need not be evaluated side by side.
#pragma once

#include "lanes.h"

namespace rti {

class Inertia {
public:
    // Bounds on the blend itself: a far plan takes longer instead of going faster.
    static constexpr float kSpeed = 2.5f;          // m/s
    static constexpr float kTurn = 8.0f;           // rad/s
    static constexpr float kLongest_s = 4.0f;
    // What a velocity may be at a seam: faster is a fault of the poses, not motion.
    static constexpr float kMaxSpeed = 6.0f, kMaxTurn = 15.0f;

    // Begin at a seam. `shown` and `shown_before` were shown `dt` seconds apart, `target` and `target_before` are the new motion at
    // the same two moments.
    void begin(const Lanes& shown, const Lanes& shown_before, const Lanes& target, const Lanes& target_before, float dt,
               float blend_s, int packs) noexcept;

    void stop() noexcept { active_ = false; }
    bool active() const noexcept { return active_; }
    // What apply() reads is so long from the object's begin on.
    static constexpr std::size_t touched(int packs) noexcept {
        return sizeof(Inertia) - static_cast<std::size_t>(kMaxPacks - packs) * sizeof(Decay);
    }

    // Move the pose of the new motion, `dt` seconds after the last call, to what is to be shown.
    RTI_INLINE void apply(Lanes& pose, float dt, int packs) noexcept {
        if (!active_) return;
        at_ += dt;
        const float s = at_ / span_;
        if (!(s < 1)) {
            active_ = false;
            return;
        }
        // Quintics with value 1 and slope 0, and value 0 and slope 1, at the seam; value, slope and curvature 0 at the end.
        const float s2 = s * s, s3 = s2 * s;
        const float keep = 1 - s3 * (10 - s * (15 - 6 * s));
        const float drift = span_ * (s - s3 * (6 - s * (8 - 3 * s)));
        pose.root = pose.root + root_offset_ * keep + root_rate_ * drift;
        for (int i = 0; i < packs; ++i) turn(pose.pack[i], turn_[i].offset, keep, turn_[i].rate, drift);
    }

private:
    struct Decay {
        Turns offset, rate;
    };

    bool active_ = false;
    float span_ = 0, at_ = 0;
    Vec3 root_offset_, root_rate_;
    Decay turn_[kMaxPacks];
};

}  // namespace rti
