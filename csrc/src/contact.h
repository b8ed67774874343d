// The last passes over a pose that is to be shown: planted feet stay where they stand, bodies stay out of each other. They read
// where the pose has its nodes (world, the engine's axes, m) and write the joints that they turn to the engine's rotations.
#pragma once

#include "rig.h"

namespace rti {

struct Aim {
    const Chain* limb;
    Vec3 target;
};

// Turn both bones of a limb so that its end comes to its target, or as near as it reaches; the end keeps its own orientation in the
// world. `placed` is kept true for the limb's three nodes.
void reach(const Rig& rig, const Aim& aim, Placed& placed, float* wxyz) noexcept;

class FootLock {
public:
    void reset() noexcept { *this = {}; }

    // Hold the feet that stand, `dt` seconds after the last call, by `strength` (0 to 1) of their way. Returns how far the farther foot
    // was moved (m).
    float apply(const Rig& rig, const Placed& placed, float dt, float strength, float* wxyz) noexcept;

private:
    void stand(Four3 ankle, Four3 step, Four toe, float scale, float dt) noexcept;

    // Both feet side by side. locked_: ones where a foot is held.
    bool known_ = false;
    Four locked_ = all(0);
    Four3 last_ = all(Vec3{});    // where the motion had it
    Four3 anchor_ = all(Vec3{});  // where it stands while locked
    Four3 shift_ = all(Vec3{});   // how far it is moved away from the motion
};

// The parts of a body that others are kept out of (m).
struct Obstacle {
    Vec3 pelvis, neck, head, crown;
    float scale = 1;
};

Obstacle obstacle_of(const Rig& rig, const Placed& placed) noexcept;

class PushOut {
public:
    void reset() noexcept { way_ = {}; }

    // Move the reactor out of the actor's trunk, and its hands out of the actor's trunk and head, `dt` seconds after the last call.
    // `strength` (0 to 1) is how much of that is done; `way` is how far the whole body goes. Returns how deep the two would have met (m).
    float apply(const Rig& rig, Placed& placed, const Obstacle& actor, float dt, float strength, Vec3& way, float* wxyz) noexcept;

private:
    Vec3 way_;
};

}  // namespace rti
