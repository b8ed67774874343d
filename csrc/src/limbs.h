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

// Turns that bend a limb of `own` lengths, whose bones point along `upper` and `lower`, so that one of `other` lengths spans the
// same line, scaled. (sin(bend / 2))^2 times both lengths says how far the end is from its farthest, whatever the proportion: a
// straight limb stays straight and small bends lose no precision, as a distance would.
inline LimbTurns same_line(Vec3 upper, Vec3 lower, Limb own, Limb other) noexcept {
    Vec3 hinge;
    const float bend = bend_of(upper, lower, hinge);
    const float scale = (other.upper + other.lower) / (own.upper + own.lower);
    const float half = scale * std::sqrt(own.upper * own.lower / (other.upper * other.lower)) * std::sin(0.5f * bend);
    const float now = 2 * std::asin(std::min(half, 1.0f));
    const float lean = lean_of(bend, own) - lean_of(now, other);
    return {from_axis_angle(hinge, lean), from_axis_angle(hinge, lean + now - bend)};
}

// Turns that bring the end of a limb to `target`, measured from its start, or as near as it reaches; `rest_hinge` is the axis
// about which a straight one bends.
inline LimbTurns reaching(Vec3 upper, Vec3 lower, Vec3 target, Vec3 rest_hinge) noexcept {
    const Limb limb{length(upper), length(lower)};
    Vec3 hinge;
    const float bend = bend_of(upper, lower, hinge);
    const Vec3 line = upper + lower, along = normalize(line);
    if (std::sin(bend) < 1e-2f) hinge = normalize(rest_hinge - along * dot(rest_hinge, along));
    const float far = std::clamp(length(target), std::fabs(limb.upper - limb.lower), limb.upper + limb.lower);
    const float cosine = (far * far - limb.upper * limb.upper - limb.lower * limb.lower) / (2 * limb.upper * limb.lower);
    const float now = std::acos(std::clamp(cosine, -1.0f, 1.0f));
    const float lean = lean_of(bend, limb) - lean_of(now, limb);
    const Quat aim = between(line, target);
    return {mul(aim, from_axis_angle(hinge, lean)), mul(aim, from_axis_angle(hinge, lean + now - bend))};
}

}  // namespace rti
