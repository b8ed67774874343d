// Poses as what is shown: each joint's rotation in its parent's frame in the engine's axes, eight joints side by side, so that one
// instruction turns several. Loops have a fixed length and no branch, which is what compilers vectorise.
#pragma once

#include <cmath>
#include <cstddef>

#include "machine.h"
#include "math.h"
#include "quad.h"

namespace rti {

constexpr int kPack = 8, kMaxPacks = 6, kMaxNodes = kPack * kMaxPacks;

struct alignas(32) Pack {
    float w[kPack], x[kPack], y[kPack], z[kPack];
};

// Rotations as vectors along their axes, 4 tan(angle / 4) long: nearly the angle, and back and forth without a sine or a root.
struct alignas(32) Turns {
    float x[kPack], y[kPack], z[kPack];
};

// root: the pelvis in the world, in the engine's axes (m); lanes past a skeleton's nodes hold the identity.
struct Lanes {
    Vec3 root;
    Pack pack[kMaxPacks];

    Lanes() noexcept {
        for (Pack& p : pack)
            for (int k = 0; k < kPack; ++k) p.w[k] = 1, p.x[k] = p.y[k] = p.z[k] = 0;
    }
    Quat get(int node) const noexcept {
        const Pack& p = pack[node / kPack];
        const int k = node % kPack;
        return {p.w[k], p.x[k], p.y[k], p.z[k]};
    }
    void set(int node, Quat q) noexcept {
        Pack& p = pack[node / kPack];
        const int k = node % kPack;
        p.w[k] = q.w, p.x[k] = q.x, p.y[k] = q.y, p.z[k] = q.z;
    }
};

// Straight interpolation between rotations of the same half of the sphere; t may lie outside 0 to 1.
RTI_INLINE void mix(const Pack& a, const Pack& b, float t, Pack& __restrict out) noexcept {
    for (int k = 0; k < kPack; ++k) {
        const float w = a.w[k] + (b.w[k] - a.w[k]) * t, x = a.x[k] + (b.x[k] - a.x[k]) * t;
        const float y = a.y[k] + (b.y[k] - a.y[k]) * t, z = a.z[k] + (b.z[k] - a.z[k]) * t;
        const float s = 1 / std::sqrt(w * w + x * x + y * y + z * z);
        out.w[k] = w * s, out.x[k] = x * s, out.y[k] = y * s, out.z[k] = z * s;
    }
}

RTI_INLINE void mix(const Lanes& a, const Lanes& b, float t, int packs, Lanes& out) noexcept {
    out.root = lerp(a.root, b.root, t);
    for (int i = 0; i < packs; ++i) mix(a.pack[i], b.pack[i], t, out.pack[i]);
}

// What turns a into b, in a's own frame, the short way round.
inline Turns way_between(const Pack& a, const Pack& b) noexcept {
    Turns out;
    for (int k = 0; k < kPack; ++k) {
        const float w = a.w[k] * b.w[k] + a.x[k] * b.x[k] + a.y[k] * b.y[k] + a.z[k] * b.z[k];
        const float s = std::copysign(4 / (1 + std::fabs(w)), w);
        out.x[k] = s * (a.w[k] * b.x[k] - a.x[k] * b.w[k] - a.y[k] * b.z[k] + a.z[k] * b.y[k]);
        out.y[k] = s * (a.w[k] * b.y[k] + a.x[k] * b.z[k] - a.y[k] * b.w[k] - a.z[k] * b.x[k]);
        out.z[k] = s * (a.w[k] * b.z[k] - a.x[k] * b.y[k] + a.y[k] * b.x[k] - a.z[k] * b.w[k]);
    }
    return out;
}

// Turn q in its own frame by `s` times one way plus `r` times another.
RTI_INLINE void turn(Pack& __restrict q, const Turns& way, float s, const Turns& other, float r) noexcept {
    const float qs = 0.25f * s, qr = 0.25f * r;
    for (int k = 0; k < kPack; ++k) {
        const float vx = way.x[k] * qs + other.x[k] * qr, vy = way.y[k] * qs + other.y[k] * qr;
        const float vz = way.z[k] * qs + other.z[k] * qr;
        const float n2 = vx * vx + vy * vy + vz * vz, d = 1 / (1 + n2);
        const float w = (1 - n2) * d, x = 2 * d * vx, y = 2 * d * vy, z = 2 * d * vz;
        const float qw = q.w[k], qx = q.x[k], qy = q.y[k], qz = q.z[k];
        q.w[k] = qw * w - qx * x - qy * y - qz * z;
        q.x[k] = qw * x + qx * w + qy * z - qz * y;
        q.y[k] = qw * y - qx * z + qy * w + qz * x;
        q.z[k] = qw * z + qx * y - qy * x + qz * w;
    }
}

// Squared lengths.
inline void squares(const Turns& v, float (&out)[kPack]) noexcept {
    for (int k = 0; k < kPack; ++k) out[k] = v.x[k] * v.x[k] + v.y[k] * v.y[k] + v.z[k] * v.z[k];
}

// None longer than `most`.
inline Turns limited(const Turns& v, float most) noexcept {
    Turns out;
    for (int k = 0; k < kPack; ++k) {
        const float n2 = v.x[k] * v.x[k] + v.y[k] * v.y[k] + v.z[k] * v.z[k];
        const float s = n2 > most * most ? most / std::sqrt(n2) : 1.0f;
        out.x[k] = v.x[k] * s, out.y[k] = v.y[k] * s, out.z[k] = v.z[k] * s;
    }
    return out;
}

inline Vec3 limited(Vec3 v, float most) noexcept {
    const float n = length(v);
    return n > most ? v * (most / n) : v;
}

// Every number finite and every rotation of unit length within 1e-3.
RTI_INLINE bool sound(const Lanes& lanes, int packs) noexcept {
    alignas(32) float off[kPack] = {};
    for (int i = 0; i < packs; ++i) {
        const Pack& p = lanes.pack[i];
        for (int k = 0; k < kPack; ++k) {
            const float d = p.w[k] * p.w[k] + p.x[k] * p.x[k] + p.y[k] * p.y[k] + p.z[k] * p.z[k] - 1;
            off[k] += d * d;
        }
    }
    // Neither NaN nor infinity compares.
    return dot(lanes.root, lanes.root) * 0 + sum(four(off) + four(off + 4)) < 4e-6f;
}

}  // namespace rti
