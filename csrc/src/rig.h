// An engine's skeleton as a tick needs it: fixed arrays in one block, in the engine's axes, metres. A node is a joint that plays a
// part or carries one that does; parents stand before children.
#pragma once

#include <cstdint>
#include <vector>

#include "lanes.h"
#include "pose.h"
#include "quad.h"

namespace rti {

// Rotations and places of nodes in the world; only those that were asked for are true.
struct Placed {
    Quat rotation[kMaxNodes];
    Place position[kMaxNodes];
};

// Two bones with a joint between them. hinge: about it a straight limb bends, in the upper node's own frame.
struct Chain {
    std::int8_t nodes[3] = {-1, -1, -1};  // the upper bone's, the lower bone's, and where that ends
    Place hinge;
    // Both bones' lengths (m), and for the law of cosines their squares together and one over twice their product.
    float lengths[4] = {};

    Chain() = default;
    Chain(std::int8_t u, std::int8_t m, std::int8_t e, Vec3 about, float p, float q) noexcept
        : nodes{u, m, e}, hinge(about), lengths{p, q, p * p + q * q, 0.5f / (p * q)} {}
    int upper() const noexcept { return nodes[0]; }
    int middle() const noexcept { return nodes[1]; }
    int end() const noexcept { return nodes[2]; }
};

struct Rig {
    int joints = 0, nodes = 0, packs = 0, feet_nodes = 0;
    float metres_per_unit = 1;
    float scale = 1;  // the legs' length in the average body's
    Vec3 up;
    std::int8_t pelvis = 0, chest = 0, neck = 0, head = 0;
    std::int8_t toes[2] = {0, 0};  // or the ankle where the skeleton has no toe, and how high that stands above the floor
    float toe_height = 0;
    Chain legs[2], arms[2];
    Quat above, pelvis_turn;       // world rotations: of what carries the pelvis, of the pelvis itself in the T-pose
    Vec3 head_up;                  // in the head's own frame
    std::int8_t parent[kMaxNodes] = {}, feet[kMaxNodes] = {}, all[kMaxNodes] = {};  // feet: the nodes down to the toes
    // Where a node's rotation begins among the engine's numbers; of lanes past the nodes: the last node's.
    std::int16_t begin[kMaxNodes] = {};
    Place offset[kMaxNodes];
    // Joints that are no nodes, which stay at rest.
    struct Still {
        std::int32_t joint;
        float wxyz[4];
    };
    std::vector<Still> still;

    // The engine's rotations [joints][4] and root.
    void write(const Lanes& lanes, float* wxyz) const noexcept {
        for (int i = 0; i < packs; ++i) {
            const Pack& p = lanes.pack[i];
            const std::int16_t* at = begin + i * kPack;
            // Backwards: lanes past the nodes are written where then comes the last node itself.
            for (int k = kPack - 4; k >= 0; k -= 4)
                rows(four(p.w + k), four(p.x + k), four(p.y + k), four(p.z + k),
                     {wxyz + at[k], wxyz + at[k + 1], wxyz + at[k + 2], wxyz + at[k + 3]});
        }
        for (const Still& s : still)
            for (int k = 0; k < 4; ++k) wxyz[4 * s.joint + k] = s.wxyz[k];
    }
    void write_root(Vec3 root, float* xyz) const noexcept {
        const float units = 1 / metres_per_unit;
        xyz[0] = root.x * units, xyz[1] = root.y * units, xyz[2] = root.z * units;
    }
    void set(int node, Quat q, float* wxyz) const noexcept {
        float* out = wxyz + begin[node];
        out[0] = q.w, out[1] = q.x, out[2] = q.y, out[3] = q.z;
    }

    // Where these nodes are, parents first, the pelvis among them, for the pelvis' place and the engine's rotations.
    void stand(Vec3 root, const float* wxyz, const std::int8_t* these, int count, Placed& out) const noexcept;

    // Which way someone faces, as a turn about the vertical, from the pelvis' local rotation; and that rotation turned in the world.
    Quat heading(Quat pelvis_local) const noexcept {
        const Quat q = mul(mul(above, pelvis_local), conj(pelvis_turn));
        const float s = q.x * up.x + q.y * up.y + q.z * up.z;
        return normalize(Quat{q.w, up.x * s, up.y * s, up.z * s});
    }
    Quat turned_pelvis(Quat pelvis_local, Quat turn) const noexcept {
        return mul(conj(above), mul(turn, mul(above, pelvis_local)));
    }
    Vec3 flat(Vec3 v) const noexcept { return v - up * dot(v, up); }
};

}  // namespace rti
