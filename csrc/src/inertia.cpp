#include "inertia.h"

#include <algorithm>
#include <cmath>

namespace rti {

RTI_SEAM void Inertia::begin(const Lanes& shown, const Lanes& shown_before, const Lanes& target, const Lanes& target_before, float dt,
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

}  // namespace rti
