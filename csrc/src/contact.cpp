#include "contact.h"

#include <algorithm>
#include <cmath>
#include <cstring>

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
        Quad turn = quad(wxyz + begin[n]);
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

void reach(const Rig& rig, const Aim& aim, Placed& placed, float* wxyz) noexcept {
    const Chain& limb = *aim.limb;
    const Limbs limbs = {&limb, &limb, &limb, &limb};
    const Bent bent = bend(limbs, placed, all(aim.target));
    if (!(sum(bent.possible) > 0)) return;
    write(rig, limbs, placed, bent, all(1), wxyz);
    alignas(16) float swing[4][4], carried[4][4], middle[4][4], end[4][4];
    rows(bent.swing.w, bent.swing.x, bent.swing.y, bent.swing.z, swing);
    rows(bent.carried.w, bent.carried.x, bent.carried.y, bent.carried.z, carried);
    rows(bent.middle.x, bent.middle.y, bent.middle.z, all(0), middle);
    rows(bent.end.x, bent.end.y, bent.end.z, all(0), end);
    for (int n = rig.parent[limb.end()]; n >= limb.upper(); n = rig.parent[n])
        store(mul(quad(n >= limb.middle() ? carried[0] : swing[0]), quad(placed.rotation[n])), placed.rotation[n]);
    const Triple from = triple(placed.position[limb.upper()]);
    store(from + triple(middle[0]), placed.position[limb.middle()]);
    store(from + triple(end[0]), placed.position[limb.end()]);
}

RTI_TICK float FootLock::apply(const Rig& rig, const Placed& placed, float dt, float strength, float* wxyz) noexcept {
    const Chain *left = &rig.legs[0], *right = &rig.legs[1];
    const Limbs legs = {left, right, right, right};
    const Four3 up = all(rig.up), ankle = places(placed, legs, [](const Chain& c) { return c.end(); });
    const auto flat = [&up](Four3 v) { return v - up * dot(v, up); };
    // Pulls at one moment tell nothing of a speed: what stands then stands as it did.
    if (!known_ || dt > 1e-4f) {
        const Four3 toes = places(placed, legs, [&](const Chain& c) { return rig.toes[&c - rig.legs]; });
        stand(ankle, flat(ankle - last_), dot(toes, up) - all(rig.toe_height), rig.scale, dt);
    }
    // Height stays the motion's: heels rise while toes stand.
    const Four3 way = flat(shift_) * all(strength);
    const Four far = dot(way, way), moved = where_more(far, all(1e-8f), far, all(0));
    float most[4];
    std::memcpy(most, &moved, sizeof most);
    const float farther = std::max(most[0], most[1]);
    if (farther > 0) write(rig, legs, placed, bend(legs, placed, ankle + way), moved, wxyz);
    return std::sqrt(farther);
}

RTI_INLINE void FootLock::stand(Four3 ankle, Four3 step, Four toe, float scale, float dt) noexcept {
    const Four one = all(1), none = all(0), half = all(0.5f), way2 = dot(step, step);
    const auto squared = [](float x) { return all(x * x); };
    const auto slower = [&](float speed) { return where_more(squared(speed * scale * dt), way2, one, none); };
    const auto lower = [&](float height) { return where_more(all(height * scale), toe, one, none); };
    const Four3 held = anchor_ - ankle, released = shift_ * all(1 - share(kRelease, dt));
    const Four near = where_more(squared(kStretch * scale), dot(held, held), one, none);
    shift_ = where_more(locked_, half, held, released);
    // It stands where it is shown, so locking moves nothing.
    anchor_ = where_more(locked_, half, anchor_, ankle + shift_);
    const Four stays = lower(2 * kToeHeight) * slower(kLeaveSpeed) * near, stops = lower(kToeHeight) * slower(kStandSpeed);
    locked_ = where_more(locked_, half, stays, stops) * all(known_ ? 1.0f : 0.0f);
    last_ = ankle;
    known_ = true;
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
            const float d = depth(part, placed.position[arm.end()], kHandRadius * rig.scale, out);
            if (d <= 0) continue;
            deepest = std::max(deepest, d);
            reach(rig, {&arm, placed.position[arm.end()] + out * (d * strength)}, placed, wxyz);
        }
    return deepest;
}

}  // namespace rti
