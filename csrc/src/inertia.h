// Inertialised blending: at a seam the difference between what was shown and what comes next is kept and let die away, so the
// pose has no jump and its velocity none either, and both plans need not be evaluated side by side.
#pragma once

#include <algorithm>
#include <cmath>

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
               float blend_s, int packs) noexcept {
        const float rate = dt > 1e-4f ? 1 / dt : 0;
        root_offset_ = shown.root - target.root;
        root_rate_ = limited(((shown.root - shown_before.root) - (target.root - target_before.root)) * rate, kMaxSpeed);
        float farthest[kPack] = {};
        for (int i = 0; i < packs; ++i) {
            turn_[i].offset = way_between(target.pack[i], shown.pack[i]);
            const Turns was = way_between(shown_before.pack[i], shown.pack[i]), will = way_between(target_before.pack[i], target.pack[i]);
            Turns speed;
            float n2[kPack];
            squares(turn_[i].offset, n2);
            // A vector of 4 tan(angle / 4) grows this much faster than the angle.
            for (int k = 0; k < kPack; ++k) {
                const float grows = rate * (1 + n2[k] / 16);
                speed.x[k] = (was.x[k] - will.x[k]) * grows;
                speed.y[k] = (was.y[k] - will.y[k]) * grows;
                speed.z[k] = (was.z[k] - will.z[k]) * grows;
                farthest[k] = n2[k] > farthest[k] ? n2[k] : farthest[k];
            }
            turn_[i].rate = limited(speed, kMaxTurn);
        }
        // A quintic from rest over its span runs at 1.875 times its mean speed at most.
        const float turn = std::sqrt(*std::max_element(farthest, farthest + kPack));
        span_ = std::min(std::max({blend_s, 1.875f * length(root_offset_) / kSpeed, 1.875f * turn / kTurn}), kLongest_s);
        at_ = 0;
        active_ = span_ > 1e-4f;
    }

    void stop() noexcept { active_ = false; }
    bool active() const noexcept { return active_; }

    // Move the pose of the new motion, `dt` seconds after the last call, to what is to be shown.
    void apply(Lanes& pose, float dt, int packs) noexcept {
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
    bool active_ = false;
    float span_ = 0, at_ = 0;
    Vec3 root_offset_, root_rate_;
    struct Decay {
        Turns offset, rate;
    } turn_[kMaxPacks];
};

}  // namespace rti
