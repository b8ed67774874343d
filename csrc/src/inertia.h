// Inertialised blending: at a seam the difference between what was shown and what comes next is kept and let die away, so the
// pose has no jump and its velocity none either, and both plans need not be evaluated side by side.
#pragma once

#include <algorithm>
#include <cmath>

#include "pose.h"

namespace rti {

// The turn between two orientations so close that sine and angle agree.
inline Vec3 small_turn(Quat from, Quat to) noexcept {
    const Quat d = mul(conj(from), to);
    const float s = d.w < 0 ? -2.0f : 2.0f;
    return {d.x * s, d.y * s, d.z * s};
}

inline Vec3 limited(Vec3 v, float most) noexcept {
    const float n = length(v);
    return n > most ? v * (most / n) : v;
}

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
    void begin(const ModelPose& shown, const ModelPose& shown_before, const ModelPose& target, const ModelPose& target_before,
               float dt, float blend_s) noexcept {
        const float rate = dt > 1e-4f ? 1 / dt : 0;
        root_.offset = shown.root - target.root;
        root_.rate = limited(((shown.root - shown_before.root) - (target.root - target_before.root)) * rate, kMaxSpeed);
        // A quintic from rest over its span runs at 1.875 times its mean speed at most.
        float span = std::max(blend_s, 1.875f * length(root_.offset) / kSpeed);
        for (int j = 0; j < kJoints; ++j) {
            turn_[j].offset = log(mul(conj(target.local[j]), shown.local[j]));
            turn_[j].rate = limited((small_turn(shown_before.local[j], shown.local[j]) -
                                     small_turn(target_before.local[j], target.local[j])) * rate, kMaxTurn);
            span = std::max(span, 1.875f * length(turn_[j].offset) / kTurn);
        }
        span_ = std::min(span, kLongest_s);
        at_ = 0;
        active_ = span_ > 1e-4f;
    }

    void stop() noexcept { active_ = false; }
    bool active() const noexcept { return active_; }

    // Move the pose of the new motion, `dt` seconds after the last call, to what is to be shown.
    void apply(ModelPose& pose, float dt) noexcept {
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
        pose.root = pose.root + root_.offset * keep + root_.rate * drift;
        for (int j = 0; j < kJoints; ++j)
            pose.local[j] = mul(pose.local[j], exp(turn_[j].offset * keep + turn_[j].rate * drift));
    }

private:
    struct Decay {
        Vec3 offset, rate;
    };

    Decay root_, turn_[kJoints];
    float span_ = 0, at_ = 0;
    bool active_ = false;
};

}  // namespace rti
