// How four limbs bend to reach, side by side and without an angle: most of the time are roots that wait for each other.
#pragma once

#include <cstring>

#include "quad.h"
#include "rig.h"

namespace rti {

// Rotations of four limbs.
struct FourQ {
    Four w, x, y, z;
};

RTI_INLINE FourQ conj(FourQ a) noexcept { return {a.w, all(0) - a.x, all(0) - a.y, all(0) - a.z}; }
RTI_INLINE FourQ mul(FourQ a, FourQ b) noexcept {
    return {a.w * b.w - a.x * b.x - a.y * b.y - a.z * b.z, a.w * b.x + a.x * b.w + a.y * b.z - a.z * b.y,
            a.w * b.y - a.x * b.z + a.y * b.w + a.z * b.x, a.w * b.z + a.x * b.y - a.y * b.x + a.z * b.w};
}
RTI_INLINE FourQ tidy(FourQ a) noexcept {
    const Four s = all(1.5f) - all(0.5f) * (a.w * a.w + a.x * a.x + a.y * a.y + a.z * a.z);
    return {a.w * s, a.x * s, a.y * s, a.z * s};
}

// Four limbs; one may be among them more than once.
using Limbs = const Chain* [4];

// What turns the whole limb in the world and what turns its lower bone, and where from the limb's begin its middle and its end come
// to. possible: ones where the limb can be turned so.
struct Bent {
    FourQ swing, carried;
    Four3 middle, end;
    Four possible;
};

// A place or a rotation of each limb.
template <class Node>
RTI_INLINE Four3 places(const Placed& placed, const Limbs& limbs, Node node) noexcept {
    const auto at = [&](int k) { return &placed.position[node(*limbs[k])].x; };
    Four3 out;
    Four none;
    columns({at(0), at(1), at(2), at(3)}, out.x, out.y, out.z, none);
    return out;
}
template <class Node>
RTI_INLINE FourQ turns(const Placed& placed, const Limbs& limbs, Node node) noexcept {
    static constexpr Quat world;
    const auto at = [&](int k) {
        const int n = node(*limbs[k]);
        return n < 0 ? &world.w : &placed.rotation[n].w;
    };
    FourQ out;
    columns({at(0), at(1), at(2), at(3)}, out.w, out.x, out.y, out.z);
    return out;
}

// Straight limbs, which are ones among `straight`, bend about their own hinges.
inline void about_hinges(const Placed& placed, const Limbs& limbs, Four straight, Four3& bend) noexcept {
    alignas(16) float world[4][4] = {};
    for (int k = 0; k < 4; ++k) store(rotate(quad(placed.rotation[limbs[k]->upper()]), triple(limbs[k]->hinge)), world[k]);
    Four3 own;
    Four none;
    columns({world[0], world[1], world[2], world[3]}, own.x, own.y, own.z, none);
    bend = where_more(straight, all(0.5f), own, bend);
}

// Bend limbs so that each ends at its target, or as near as it reaches.
RTI_INLINE Bent bend(const Limbs& limbs, const Placed& placed, Four3 target) noexcept {
    Four3 place[3];
    for (int j = 0; j < 3; ++j) place[j] = places(placed, limbs, [j](const Chain& c) { return c.nodes[j]; });
    const Four3 u = place[1] - place[0], v = place[2] - place[1], line = target - place[0];
    Four p, q, squares, unit;
    columns({limbs[0]->lengths, limbs[1]->lengths, limbs[2]->lengths, limbs[3]->lengths}, p, q, squares, unit);
    const Four one = all(1), two = all(2), far2 = dot(line, line);
    const Four least = larger(p - q, q - p) + all(1e-3f), most = all(0.999f) * (p + q);
    const Four want2 = smaller(larger(far2, least * least), most * most);
    // Cosines and sines of the inner angle now and as it shall be, by the law of cosines.
    const Four now = smaller(larger((squares - dot(u + v, u + v)) * unit, all(-1)), one), now_sine = root(one - now * now);
    const Four then = (squares - want2) * unit, then_sine = root(one - then * then);
    // The limb bends in the plane it bends in already; a straight one about the joint's own side.
    Four3 hinge = cross(u, v) * (two * unit / now_sine);
    const Four straight = where_more(all(1e-3f), now_sine, one, all(0));
    if (sum(straight) > 0) about_hinges(placed, limbs, straight, hinge);
    const Four cosine = now * then + now_sine * then_sine, sine = now_sine * then - now * then_sine;
    const Four3 reached = u + v * cosine + cross(hinge, v) * sine + hinge * (dot(hinge, v) * (one - cosine));
    // The shortest turn of what it reaches into the line to the target.
    const Four both = root(far2 * dot(reached, reached)), along = both + dot(reached, line);
    const Four norm = one / root(two * both * along), w = along * norm;
    const Four3 around = cross(reached, line) * norm, t = cross(around, u) * two;
    const FourQ swing{w, around.x, around.y, around.z};
    // The lower bone is opened first, then swung with the upper.
    const Four more = one + cosine, half = one / root(two * larger(more, all(1e-6f)));
    const Four3 open = hinge * (sine * half);
    return {swing, mul(swing, {more * half, open.x, open.y, open.z}), u + t * w + cross(around, t), line * (both / far2),
            where_more(along, all(1e-3f) * both, one, all(0))};
}

// Write what limbs' three joints turn to, where `wanted` is more than zero and the limb can be turned so. The end keeps its own
// orientation in the world; what lies between two of the three goes with the one above it, so its own rotation stays.
RTI_INLINE void write(const Rig& rig, const Limbs& limbs, const Placed& placed, const Bent& bent, Four wanted, float* wxyz) noexcept {
    const FourQ still{all(1), all(0), all(0), all(0)}, moves[4] = {still, bent.swing, bent.carried, still};
    const Four turned = wanted * bent.possible;
    float is_turned[4], nowhere[4];
    std::memcpy(is_turned, &turned, sizeof is_turned);
    // A loop, because code that is found out of the caches costs more than two turns by nothing.
    for (int j = 0; j < 3; ++j) {
        const FourQ above = mul(moves[j], turns(placed, limbs, [&, j](const Chain& c) { return rig.parent[c.nodes[j]]; }));
        const FourQ own = mul(moves[j + 1], turns(placed, limbs, [j](const Chain& c) { return c.nodes[j]; }));
        const FourQ local = tidy(mul(conj(above), own));
        const auto to = [&](int k) { return is_turned[k] > 0 ? wxyz + rig.begin[limbs[k]->nodes[j]] : nowhere; };
        rows(local.w, local.x, local.y, local.z, {to(0), to(1), to(2), to(3)});
    }
}

}  // namespace rti
