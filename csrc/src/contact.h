// The last passes over a pose that is to be shown: planted feet stay where they stand, bodies stay out of each other.
#pragma once

#include "pose.h"

namespace rti {

// Turn hip and knee (or shoulder and elbow) so that the limb's end comes to `target`, or as near as it reaches; the end keeps its
// own orientation in the world. `world` is of `pose` and is kept true for the three joints.
void reach(ModelPose& pose, WorldPose& world, int upper, int middle, int end, Vec3 target) noexcept;

class FootLock {
public:
    void reset() noexcept { *this = FootLock(); }

    // Hold the feet that stand, `dt` seconds after the last call. Returns how far the farther foot was moved (m).
    float apply(ModelPose& pose, WorldPose& world, float dt) noexcept;

private:
    struct Foot {
        bool known = false, locked = false;
        Vec3 last;    // where the motion had it
        Vec3 anchor;  // where it stands while locked
        Vec3 shift;   // how far it is moved away from the motion
    };

    Foot feet_[2];
};

class PushOut {
public:
    void reset() noexcept { way_ = {}; }

    // Move the reactor out of the actor's trunk, and its hands out of the actor's trunk and head, `dt` seconds after the last call.
    // Returns how deep the two would have met (m).
    float apply(ModelPose& pose, WorldPose& world, const WorldPose& actor, float dt) noexcept;

private:
    Vec3 way_;
};

}  // namespace rti
