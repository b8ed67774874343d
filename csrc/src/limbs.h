// Two-bone limbs by the law of cosines: how far they bend, how their first bone leans off the line to their end.
#pragma once

#include <algorithm>
#include <cmath>

#include "math.h"

namespace rti {

// Lengths of a limb's two bones (m).
struct Limb {
    float upper = 0, lower = 0;
};

struct LimbTurns {
    Quat upper, lower;
};

// The axis about which the lower bone is bent away from the upper, and by how much (rad); 0 when straight.
inline float bend_of(Vec3 upper, Vec3 lower, Vec3& hinge) noexcept {
    const Vec3 across = cross(upper, lower);
    hinge = normalize(across);
    return std::atan2(length(across), dot(upper, lower));
}

inline float lean_of(float bend, Limb limb) noexcept {
    return std::atan2(limb.lower * std::sin(bend), limb.upper + limb.lower * std::cos(bend));
}

// The turn about a unit axis by the angle of this cosine and sine.
inline Quat turn_of(Vec3 axis, float cosine, float sine) noexcept {
    if (cosine < -0.999999f) return {0, axis.x, axis.y, axis.z};
    return normalize(Quat{1 + cosine, axis.x * sine, axis.y * sine, axis.z * sine});
}

// Turns that bend a limb of `own` lengths, whose bones are `upper` and `lower`, so that one of `other` lengths spans the same
// line, scaled. (sin(bend / 2))^2 times both lengths says how far the end is from its farthest, whatever the proportion: a
// straight limb stays straight, and small bends lose no precision, as a distance would. Without an angle: this runs every tick.
inline LimbTurns same_line(Vec3 upper, Vec3 lower, Limb own, Limb other) noexcept {
    const Vec3 across = cross(upper, lower);
    const float area = length(across), unit = 1 / (own.upper * own.lower);
    const Vec3 hinge = normalize(across);
    const float c = dot(upper, lower) * unit, s = area * unit;
    const float half = c > 0 ? 0.5f * s * s / (1 + c) : 0.5f * (1 - c);
    const float scale = (other.upper + other.lower) / (own.upper + own.lower);
    const float new_half = std::min(scale * scale * half * own.upper * own.lower / (other.upper * other.lower), 1.0f);
    const float nc = 1 - 2 * new_half, ns = 2 * std::sqrt(new_half * (1 - new_half));
    // Cosines and sines of both leans, times the two spans, which normalising takes away.
    const float ax = own.upper + own.lower * c, ay = own.lower * s;
    const float bx = other.upper + other.lower * nc, by = other.lower * ns;
    const float norm = 1 / std::sqrt(std::max((ax * ax + ay * ay) * (bx * bx + by * by), 1e-20f));
    const float lc = (ax * bx + ay * by) * norm, ls = (ay * bx - ax * by) * norm;
    const float dc = nc * c + ns * s, ds = ns * c - nc * s;
    return {turn_of(hinge, lc, ls), turn_of(hinge, lc * dc - ls * ds, ls * dc + lc * ds)};
}

// Turns that bring the end of a limb to `target`, measured from its start, or as near as it reaches; `rest_hinge` is the axis
// about which a straight one bends.
inline LimbTurns reaching(Vec3 upper, Vec3 lower, Vec3 target, Vec3 rest_hinge) noexcept {
    const Limb limb{length(upper), length(lower)};
    Vec3 hinge;
    const float bend = bend_of(upper, lower, hinge);
    const Vec3 line = upper + lower, along = normalize(line);
    if (std::sin(bend) < 1e-2f) hinge = normalize(rest_hinge - along * dot(rest_hinge, along));
    const float span = std::clamp(length(target), std::fabs(limb.upper - limb.lower), limb.upper + limb.lower);
    const float cosine = (span * span - limb.upper * limb.upper - limb.lower * limb.lower) / (2 * limb.upper * limb.lower);
    const float now = std::acos(std::clamp(cosine, -1.0f, 1.0f));
    const float lean = lean_of(bend, limb) - lean_of(now, limb);
    const Quat aim = between(line, target);
    return {mul(aim, from_axis_angle(hinge, lean)), mul(aim, from_axis_angle(hinge, lean + now - bend))};
}

}  // namespace rti
