#include "contact.h"

#include <algorithm>
#include <cmath>

#include "bends.h"
#include "machine.h"
#include "quad.h"

namespace rti {
namespace {

// A foot stands when its toes are this low and the ankle this slow; it lets go above the second speed or stretch. Lengths are of
// the average body.
constexpr float kToeHeight = 0.06f, kStandSpeed = 0.35f, kLeaveSpeed = 0.9f, kStretch = 0.12f;
// How fast a shift dies away (1/s).
constexpr float kRelease = 12.0f;

constexpr float kTrunkRadius = 0.15f, kHeadRadius = 0.11f, kHandRadius = 0.04f, kCrown = 0.08f;
// A way out is taken up quickly and given back slowly (1/s), so that nobody trembles at a surface.
constexpr float kTakeUp = 25.0f, kGiveBack = 4.0f;

// How much of a way that dies away at this rate is gone after dt.
float share(float rate, float dt) noexcept { return rate * dt / (1 + rate * dt); }

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

}  // namespace

RTI_TICK void Rig::stand(Vec3 root, const float* wxyz, const std::int8_t* these, int count, Placed& out) const noexcept {
    for (int i = 0; i < count; ++i) {
        const int n = these[i], p = parent[n];
        Quad turn = quad(wxyz + 4 * joint_of[n]);
        Triple at = triple(root);
        if (p >= 0) {
            const Quad above_it = quad(out.rotation[p]);
            turn = mul(above_it, turn);
            at = triple(out.position[p]) + rotate(above_it, triple(offset[n]));
        }
        store(turn, out.rotation[n]);
        store(at, out.position[n]);
    }
    if (pelvis == 0) return;
    const Vec3 shift = root - out.position[pelvis];
    for (int i = 0; i < count; ++i) out.position[these[i]] = out.position[these[i]] + shift;
}

// It runs every tick that a foot stands.
RTI_TICK void reach(const Rig& rig, const Aim* aims, int count, Placed& placed, float* wxyz) noexcept {
    Bends bends;
    for (int k = 0; k < count; ++k) bends.set(k, *aims[k].limb, placed, aims[k].target);
    bends.solve();
    for (int k = 0; k < count; ++k) {
        if (!bends.possible(k)) continue;
        const Chain& limb = *aims[k].limb;
        const int upper = limb.upper, middle = limb.middle, end = limb.end;
        const Quad swing = bends.swing(k), carried = bends.carried(k);
        // What lies between two of the three goes with the one above it.
        for (int n = rig.parent[end]; n >= upper; n = rig.parent[n])
            store(mul(n >= middle ? carried : swing, quad(placed.rotation[n])), placed.rotation[n]);
        const Triple a = triple(placed.position[upper]);
        store(a + bends.middle(k), placed.position[middle]);
        store(a + bends.end(k), placed.position[end]);
        for (const int n : {upper, middle, end}) {
            const Quad world = quad(placed.rotation[n]);
            const int p = rig.parent[n];
            store(tidy(p < 0 ? world : mul(conj(quad(placed.rotation[p])), world)), wxyz + 4 * rig.joint_of[n]);
        }
    }
}

RTI_TICK float FootLock::apply(const Rig& rig, Placed& placed, float dt, float strength, float* wxyz) noexcept {
    float moved = 0;
    Aim aims[2];
    int count = 0;
    for (int side = 0; side < 2; ++side) {
        Foot& foot = feet_[side];
        const Vec3 ankle = placed.position[rig.legs[side].end];
        const float toe = dot(placed.position[rig.toes[side]], rig.up) - rig.toe_height;
        // Pulls at one moment tell nothing of a speed: what stands then stands as it did.
        if (!foot.known || dt > 1e-4f) {
            const Vec3 step = rig.flat(ankle - foot.last);
            const auto slower = [&](float speed) {
                const float most = speed * rig.scale * dt;
                return foot.known && dot(step, step) < most * most;
            };
            if (foot.locked) {
                foot.shift = foot.anchor - ankle;
                foot.locked = toe < 2 * kToeHeight * rig.scale && slower(kLeaveSpeed) &&
                              dot(foot.shift, foot.shift) < kStretch * kStretch * rig.scale * rig.scale;
            } else {
                foot.shift = foot.shift * (1 - share(kRelease, dt));
                foot.locked = toe < kToeHeight * rig.scale && slower(kStandSpeed);
                // It stands where it is shown, so locking moves nothing.
                foot.anchor = ankle + foot.shift;
            }
            foot.last = ankle;
            foot.known = true;
        }
        // Height stays the motion's: heels rise while toes stand.
        const Vec3 flat = rig.flat(foot.shift) * strength;
        if (!(dot(flat, flat) > 1e-8f)) continue;
        moved = std::max(moved, dot(flat, flat));
        aims[count++] = {&rig.legs[side], ankle + flat};
    }
    if (count != 0) reach(rig, aims, count, placed, wxyz);
    return std::sqrt(moved);
}

Obstacle obstacle_of(const Rig& rig, const Placed& placed) noexcept {
    const Vec3 head = placed.position[rig.head];
    return {placed.position[rig.pelvis], placed.position[rig.neck], head,
            head + rotate(placed.rotation[rig.head], rig.head_up) * (kCrown * rig.scale), rig.scale};
}

float PushOut::apply(const Rig& rig, Placed& placed, const Obstacle& actor, float dt, float strength, Vec3& way,
                     float* wxyz) noexcept {
    const Capsule body{actor.pelvis, actor.neck, kTrunkRadius * actor.scale};
    const Capsule head{actor.head, actor.crown, kHeadRadius * actor.scale};
    float deepest = 0;
    Vec3 want;
    for (const int node : {rig.pelvis, rig.chest, rig.neck}) {
        Vec3 out;
        const float d = depth(body, placed.position[node], kTrunkRadius * rig.scale, out);
        if (d <= 0) continue;
        deepest = std::max(deepest, d);
        // People step aside; they are not lifted.
        const Vec3 flat = normalize(rig.flat(out), normalize(rig.flat({rig.up.y, rig.up.z, rig.up.x}))) * d;
        if (dot(flat, flat) > dot(want, want)) want = flat;
    }
    way_ = way_ + (want - way_) * share(dot(want, want) > dot(way_, way_) ? kTakeUp : kGiveBack, dt);
    way = finite(way_) && dot(way_, way_) > 1e-8f ? way_ * strength : Vec3{};
    for (int n = 0; n < rig.nodes; ++n) placed.position[n] = placed.position[n] + way;
    for (const Chain& arm : rig.arms)
        for (const Capsule& part : {body, head}) {
            Vec3 out;
            const float d = depth(part, placed.position[arm.end], kHandRadius * rig.scale, out);
            if (d <= 0) continue;
            deepest = std::max(deepest, d);
            const Aim aim{&arm, placed.position[arm.end] + out * (d * strength)};
            reach(rig, &aim, 1, placed, wxyz);
        }
    return deepest;
}

}  // namespace rti
