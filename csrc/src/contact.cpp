#include "contact.h"

#include <algorithm>
#include <cmath>

namespace rti {
namespace {

constexpr int kHips[2] = {kLeftHip, kRightHip}, kKnees[2] = {kLeftKnee, kRightKnee}, kAnkles[2] = {kLeftAnkle, kRightAnkle};
constexpr int kToes[2] = {kLeftFoot, kRightFoot};

// A foot stands when its toes are this low and the ankle this slow; it lets go above the second speed or stretch.
constexpr float kToeHeight = 0.06f, kStandSpeed = 0.35f, kLeaveSpeed = 0.9f, kStretch = 0.12f;
// How fast a shift dies away (1/s).
constexpr float kRelease = 12.0f;

constexpr float kTrunkRadius = 0.15f, kHeadRadius = 0.11f, kHandRadius = 0.04f;
// A way out is taken up quickly and given back slowly (1/s), so that nobody trembles at a surface.
constexpr float kTakeUp = 25.0f, kGiveBack = 4.0f;

float share(float rate, float dt) noexcept { return 1 - std::exp(-rate * dt); }

struct Capsule {
    Vec3 a, b;
    float radius;
};

Vec3 closest(const Capsule& c, Vec3 p) noexcept {
    const Vec3 d = c.b - c.a;
    const float n = dot(d, d);
    return c.a + d * (n > 1e-9f ? std::clamp(dot(p - c.a, d) / n, 0.0f, 1.0f) : 0.0f);
}

// How deep a ball lies in a capsule, and the way out.
float depth(const Capsule& c, Vec3 centre, float radius, Vec3& out) noexcept {
    const Vec3 away = centre - closest(c, centre);
    out = normalize(away, {0, 0, 1});
    return c.radius + radius - length(away);
}

Capsule trunk(const WorldPose& p) noexcept { return {p.position[kPelvis], p.position[kNeck], kTrunkRadius}; }
Capsule head(const WorldPose& p) noexcept {
    return {p.position[kHead], p.position[kHead] + rotate(p.rotation[kHead], {0, 0.08f, 0}), kHeadRadius};
}

void turn(ModelPose& pose, WorldPose& world, int joint, Quat by) noexcept {
    const Quat parent = world.rotation[kParents[static_cast<std::size_t>(joint)]];
    world.rotation[joint] = normalize(mul(by, world.rotation[joint]));
    pose.local[joint] = normalize(mul(conj(parent), world.rotation[joint]));
}

}  // namespace

void reach(ModelPose& pose, WorldPose& world, int upper, int middle, int end, Vec3 target) noexcept {
    const Vec3 a = world.position[upper], b = world.position[middle], c = world.position[end];
    const float ab = length(b - a), bc = length(c - b);
    const float want = std::clamp(length(target - a), std::fabs(ab - bc) + 1e-3f, 0.999f * (ab + bc));
    if (ab < 1e-4f || bc < 1e-4f) return;
    // The limb bends in the plane it bends in already; a straight one about the joint's own side.
    const Vec3 bend = normalize(cross(b - a, c - b), rotate(world.rotation[upper], {1, 0, 0}));
    const auto inner = [](float p, float q, float r) noexcept {
        return std::acos(std::clamp((p * p + q * q - r * r) / (2 * p * q), -1.0f, 1.0f));
    };
    const float now = std::acos(std::clamp(dot(normalize(a - b), normalize(c - b)), -1.0f, 1.0f));
    const Quat end_rotation = world.rotation[end];
    const Quat open = from_axis_angle(bend, now - inner(ab, bc, want));
    const Vec3 lower = rotate(open, c - b);
    const Quat swing = between(b + lower - a, target - a);
    turn(pose, world, upper, swing);
    world.position[middle] = a + rotate(swing, b - a);
    // The middle joint turns with its parent, then by its own opening.
    const Quat carried = mul(swing, mul(open, world.rotation[middle]));
    world.rotation[middle] = normalize(carried);
    pose.local[middle] = normalize(mul(conj(world.rotation[upper]), world.rotation[middle]));
    world.position[end] = world.position[middle] + rotate(swing, lower);
    world.rotation[end] = end_rotation;
    pose.local[end] = normalize(mul(conj(world.rotation[middle]), end_rotation));
}

float FootLock::apply(ModelPose& pose, WorldPose& world, float dt) noexcept {
    float moved = 0;
    for (int side = 0; side < 2; ++side) {
        Foot& foot = feet_[side];
        const Vec3 ankle = world.position[kAnkles[side]];
        const float toe = world.position[kToes[side]].y;
        const Vec3 step = ankle - foot.last;
        const float speed = foot.known && dt > 1e-4f ? length({step.x, 0, step.z}) / dt : 0;
        const bool fresh = !foot.known || dt <= 0;
        foot.last = ankle;
        foot.known = true;
        if (fresh) continue;
        if (foot.locked) {
            foot.shift = foot.anchor - ankle;
            foot.locked = toe < 2 * kToeHeight && speed < kLeaveSpeed && length(foot.shift) < kStretch;
        } else {
            foot.shift = foot.shift * (1 - share(kRelease, dt));
            foot.locked = toe < kToeHeight && speed < kStandSpeed;
            // It stands where it is shown, so locking moves nothing.
            foot.anchor = ankle + foot.shift;
        }
        // Height stays the motion's: heels rise while toes stand.
        const Vec3 flat{foot.shift.x, 0, foot.shift.z};
        if (length(flat) < 1e-4f) continue;
        moved = std::max(moved, length(flat));
        const Vec3 toe_way = world.position[kToes[side]] - ankle;
        reach(pose, world, kHips[side], kKnees[side], kAnkles[side], ankle + flat);
        world.position[kToes[side]] = world.position[kAnkles[side]] + toe_way;
    }
    return moved;
}

float PushOut::apply(ModelPose& pose, WorldPose& world, const WorldPose& actor, float dt) noexcept {
    const Capsule body = trunk(actor);
    float deepest = 0;
    Vec3 want;
    for (const int joint : {kPelvis, kSpine2, kNeck}) {
        Vec3 out;
        const float d = depth(body, world.position[joint], kTrunkRadius, out);
        if (d <= 0) continue;
        deepest = std::max(deepest, d);
        // People step aside; they are not lifted.
        const Vec3 flat = normalize(Vec3{out.x, 0, out.z}, {0, 0, 1}) * d;
        if (dot(flat, flat) > dot(want, want)) want = flat;
    }
    way_ = way_ + (want - way_) * share(dot(want, want) > dot(way_, way_) ? kTakeUp : kGiveBack, dt);
    if (dot(way_, way_) > 1e-8f) {
        pose.root = pose.root + way_;
        for (Vec3& p : world.position) p = p + way_;
    }
    static constexpr int kArms[2][3] = {{kLeftShoulder, kLeftElbow, kLeftWrist}, {kRightShoulder, kRightElbow, kRightWrist}};
    for (const auto& arm : kArms)
        for (const Capsule& part : {body, head(actor)}) {
            Vec3 out;
            const float d = depth(part, world.position[arm[2]], kHandRadius, out);
            if (d <= 0) continue;
            deepest = std::max(deepest, d);
            reach(pose, world, arm[0], arm[1], arm[2], world.position[arm[2]] + out * d);
        }
    return deepest;
}

}  // namespace rti
