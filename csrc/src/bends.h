// How up to four limbs bend to reach, side by side and without an angle: most of the time are roots that wait for each other.
#pragma once

#include <cstring>

#include "quad.h"
#include "rig.h"

namespace rti {

// Vectors and rotations of four limbs.
struct Four3 {
    Four x, y, z;
};
struct FourQ {
    Four w, x, y, z;
};

RTI_INLINE Four3 operator+(Four3 a, Four3 b) noexcept { return {a.x + b.x, a.y + b.y, a.z + b.z}; }
RTI_INLINE Four3 operator*(Four3 a, Four s) noexcept { return {a.x * s, a.y * s, a.z * s}; }
RTI_INLINE Four dot(Four3 a, Four3 b) noexcept { return a.x * b.x + a.y * b.y + a.z * b.z; }
RTI_INLINE Four3 cross(Four3 a, Four3 b) noexcept {
    return {a.y * b.z - a.z * b.y, a.z * b.x - a.x * b.z, a.x * b.y - a.y * b.x};
}

class Bends {
public:
    // A limb, which is to end at `target`; its nodes' places and its upper node's rotation in the world.
    RTI_INLINE void set(int k, const Chain& limb, const Placed& placed, Vec3 target) noexcept {
        const Triple a = triple(placed.position[limb.upper]), b = triple(placed.position[limb.middle]);
        const Triple c = triple(placed.position[limb.end]);
        store(b - a, upper_[k]);
        store(c - b, lower_[k]);
        store(triple(target) - a, line_[k]);
        store(rotate(quad(placed.rotation[limb.upper]), triple(limb.hinge)), hinge_[k]);
        const float lengths[4] = {limb.first, limb.second, limb.squares, limb.unit};
        std::memcpy(lengths_[k], lengths, sizeof lengths);
    }

    RTI_INLINE void solve() noexcept {
        Four p, q, squares, unit, spare;
        Four3 u, v, line, hinge;
        columns(lengths_[0], p, q, squares, unit);
        columns(upper_[0], u.x, u.y, u.z, spare);
        columns(lower_[0], v.x, v.y, v.z, spare);
        columns(line_[0], line.x, line.y, line.z, spare);
        columns(hinge_[0], hinge.x, hinge.y, hinge.z, spare);
        const Four one = all(1), two = all(2), far2 = dot(line, line);
        const Four least = larger(p - q, q - p) + all(1e-3f), most = all(0.999f) * (p + q);
        const Four want2 = smaller(larger(far2, least * least), most * most);
        // Cosines and sines of the inner angle now and as it shall be, by the law of cosines.
        const Four now = smaller(larger((squares - dot(u + v, u + v)) * unit, all(-1)), one), now_sine = root(one - now * now);
        const Four then = (squares - want2) * unit, then_sine = root(one - then * then);
        // The limb bends in the plane it bends in already; a straight one about the joint's own side.
        const Four straight = all(1e-3f);
        const Four3 plane = cross(u, v) * (two * unit / now_sine);
        const Four3 bend{where_more(now_sine, straight, plane.x, hinge.x), where_more(now_sine, straight, plane.y, hinge.y),
                         where_more(now_sine, straight, plane.z, hinge.z)};
        const Four cosine = now * then + now_sine * then_sine, sine = now_sine * then - now * then_sine;
        const Four3 reached = u + v * cosine + cross(bend, v) * sine + bend * (dot(bend, v) * (one - cosine));
        // The shortest turn of what it reaches into the line to the target.
        const Four both = root(far2 * dot(reached, reached)), along = both + dot(reached, line);
        const Four norm = one / root(two * both * along);
        const Four3 around = cross(reached, line) * norm, end = line * (both / far2);
        const Four w = along * norm;
        rows(end.x, end.y, end.z, where_more(along, all(1e-3f) * both, one, all(0)), end_);
        const Four3 t = cross(around, u) * two, middle = u + t * w + cross(around, t);
        rows(middle.x, middle.y, middle.z, one, middle_);
        rows(w, around.x, around.y, around.z, swing_);
        const Four more = one + cosine, half = one / root(two * larger(more, all(1e-6f)));
        carry({w, around.x, around.y, around.z}, more * half, bend * (sine * half));
    }

    // Whether it can be, and if so: what turns the whole limb, what turns its lower bone, and where from the limb's begin its middle
    // and its end come to.
    bool possible(int k) const noexcept { return end_[k][3] > 0; }
    Quad swing(int k) const noexcept { return quad(swing_[k]); }
    Quad carried(int k) const noexcept { return quad(carried_[k]); }
    Triple middle(int k) const noexcept { return triple(middle_[k]); }
    Triple end(int k) const noexcept { return triple(end_[k]); }

private:
    // The lower bone is opened first, then swung with the upper.
    RTI_INLINE void carry(FourQ a, Four w, Four3 b) noexcept {
        rows(a.w * w - a.x * b.x - a.y * b.y - a.z * b.z, a.w * b.x + a.x * w + a.y * b.z - a.z * b.y,
             a.w * b.y - a.x * b.z + a.y * w + a.z * b.x, a.w * b.z + a.x * b.y - a.y * b.x + a.z * w, carried_);
    }

    // A limb's numbers stand in one row each.
    using Rows = float[kPack][4];
    alignas(16) Rows upper_ = {}, lower_ = {}, line_ = {}, hinge_ = {}, lengths_ = {};
    alignas(16) Rows middle_, end_, swing_, carried_;
};

}  // namespace rti
