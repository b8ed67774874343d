// Vectors and rotations of the session core: float, wxyz, right-handed. Header-only, without dependencies.
#pragma once

#include <cmath>

namespace rti {

struct Vec3 {
    float x = 0, y = 0, z = 0;
};

struct Quat {
    float w = 1, x = 0, y = 0, z = 0;
};

inline Vec3 operator+(Vec3 a, Vec3 b) noexcept { return {a.x + b.x, a.y + b.y, a.z + b.z}; }
inline Vec3 operator-(Vec3 a, Vec3 b) noexcept { return {a.x - b.x, a.y - b.y, a.z - b.z}; }
inline Vec3 operator-(Vec3 a) noexcept { return {-a.x, -a.y, -a.z}; }
inline Vec3 operator*(Vec3 a, float s) noexcept { return {a.x * s, a.y * s, a.z * s}; }
inline float dot(Vec3 a, Vec3 b) noexcept { return a.x * b.x + a.y * b.y + a.z * b.z; }
inline Vec3 cross(Vec3 a, Vec3 b) noexcept {
    return {a.y * b.z - a.z * b.y, a.z * b.x - a.x * b.z, a.x * b.y - a.y * b.x};
}
inline float length(Vec3 a) noexcept { return std::sqrt(dot(a, a)); }
inline Vec3 lerp(Vec3 a, Vec3 b, float t) noexcept { return a + (b - a) * t; }

// The unit vector along a, or `otherwise` where a has no direction.
inline Vec3 normalize(Vec3 a, Vec3 otherwise = {0, 1, 0}) noexcept {
    const float n = length(a);
    return n > 1e-12f ? a * (1 / n) : otherwise;
}

inline bool finite(Vec3 a) noexcept { return std::isfinite(a.x) && std::isfinite(a.y) && std::isfinite(a.z); }

inline float dot(Quat a, Quat b) noexcept { return a.w * b.w + a.x * b.x + a.y * b.y + a.z * b.z; }
inline Quat operator-(Quat a) noexcept { return {-a.w, -a.x, -a.y, -a.z}; }
inline Quat conj(Quat a) noexcept { return {a.w, -a.x, -a.y, -a.z}; }

// The rotation b, then the rotation a.
inline Quat mul(Quat a, Quat b) noexcept {
    return {a.w * b.w - a.x * b.x - a.y * b.y - a.z * b.z, a.w * b.x + a.x * b.w + a.y * b.z - a.z * b.y,
            a.w * b.y - a.x * b.z + a.y * b.w + a.z * b.x, a.w * b.z + a.x * b.y - a.y * b.x + a.z * b.w};
}

inline Vec3 rotate(Quat q, Vec3 v) noexcept {
    const Vec3 u{q.x, q.y, q.z};
    const Vec3 t = cross(u, v) * 2;
    return v + t * q.w + cross(u, t);
}

// Of unit length; the identity where q is zero.
inline Quat normalize(Quat q) noexcept {
    const float n2 = dot(q, q);
    if (!(n2 > 1e-20f)) return {};
    const float s = 1 / std::sqrt(n2);
    return {q.w * s, q.x * s, q.y * s, q.z * s};
}

// Back to unit length from near it, without a root.
inline Quat tidy(Quat q) noexcept {
    const float s = 1.5f - 0.5f * dot(q, q);
    return {q.w * s, q.x * s, q.y * s, q.z * s};
}

inline bool finite(Quat q) noexcept {
    return std::isfinite(q.w) && std::isfinite(q.x) && std::isfinite(q.y) && std::isfinite(q.z);
}

// `axis` is of unit length, `angle` in radians.
inline Quat from_axis_angle(Vec3 axis, float angle) noexcept {
    const float s = std::sin(0.5f * angle);
    return {std::cos(0.5f * angle), axis.x * s, axis.y * s, axis.z * s};
}

// The rotation of a rotation vector: axis times angle in radians. Its series serve up to a radian, where both are exact to a float.
inline Quat exp(Vec3 v) noexcept {
    const float n2 = dot(v, v);
    if (n2 > 1) {
        const float angle = std::sqrt(n2);
        return from_axis_angle(v * (1 / angle), angle);
    }
    const float h2 = 0.25f * n2;
    const float s = 0.5f * (1 - h2 / 6 * (1 - h2 / 20 * (1 - h2 / 42)));
    return {1 - h2 / 2 * (1 - h2 / 12 * (1 - h2 / 30)), v.x * s, v.y * s, v.z * s};
}

// The rotation vector of a unit quaternion, the short way round: its length is at most pi.
inline Vec3 log(Quat q) noexcept {
    if (q.w < 0) q = -q;
    const Vec3 u{q.x, q.y, q.z};
    const float s2 = dot(u, u);
    if (s2 < 0.04f) return u * (2 + s2 * (1.0f / 3 + s2 * (3.0f / 20 + s2 * (5.0f / 56))));
    const float s = std::sqrt(s2);
    return u * (2 * std::atan2(s, q.w) / s);
}

inline float angle_between(Quat a, Quat b) noexcept { return length(log(mul(conj(a), b))); }

// The shortest rotation that turns the direction of a into the direction of b.
inline Quat between(Vec3 a, Vec3 b) noexcept {
    a = normalize(a);
    b = normalize(b);
    const float w = 1 + dot(a, b);
    if (w < 1e-6f) {
        const Vec3 other = std::fabs(a.x) < 0.7f ? Vec3{0, -a.z, a.y} : Vec3{a.z, 0, -a.x};
        const Vec3 axis = normalize(other);
        return {0, axis.x, axis.y, axis.z};
    }
    const Vec3 c = cross(a, b);
    return normalize(Quat{w, c.x, c.y, c.z});
}

// Straight interpolation, the short way round: enough between neighbouring frames.
inline Quat nlerp(Quat a, Quat b, float t) noexcept {
    const float s = dot(a, b) < 0 ? -t : t;
    return normalize(Quat{a.w * (1 - t) + b.w * s, a.x * (1 - t) + b.x * s, a.y * (1 - t) + b.y * s,
                          a.z * (1 - t) + b.z * s});
}

// Spherical interpolation at a constant speed, the short way round.
inline Quat slerp(Quat a, Quat b, float t) noexcept {
    float c = dot(a, b);
    if (c < 0) {
        b = -b;
        c = -c;
    }
    if (c > 0.9995f) return nlerp(a, b, t);
    const float angle = std::acos(c);
    const float s = 1 / std::sin(angle);
    const float wa = std::sin((1 - t) * angle) * s, wb = std::sin(t * angle) * s;
    return normalize(Quat{a.w * wa + b.w * wb, a.x * wa + b.x * wb, a.y * wa + b.y * wb, a.z * wa + b.z * wb});
}

// The turn about +Y in q, and nothing else of it.
inline Quat yaw_of(Quat q) noexcept { return normalize(Quat{q.w, 0, q.y, 0}); }

}  // namespace rti
