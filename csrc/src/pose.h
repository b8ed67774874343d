// The model's own poses: SMPL-22, 30 frames a second, metres, right-handed, +Y up.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "math.h"

namespace rti {

constexpr int kJoints = 22;
constexpr double kFps = 30.0;

enum Joint : int {
    kPelvis, kLeftHip, kRightHip, kSpine1, kLeftKnee, kRightKnee, kSpine2, kLeftAnkle, kRightAnkle, kSpine3, kLeftFoot,
    kRightFoot, kNeck, kLeftCollar, kRightCollar, kHead, kLeftShoulder, kRightShoulder, kLeftElbow, kRightElbow, kLeftWrist,
    kRightWrist
};

// A parent stands before its children; -1 for the pelvis.
constexpr std::array<int, kJoints> kParents = {-1, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 12, 13, 14, 16, 17, 18, 19};

// root: the pelvis in the world (m); local: each joint's rotation in its parent's frame, the pelvis' in the world.
struct ModelPose {
    Vec3 root;
    Quat local[kJoints];
};

// Rest places of the joints in their parents' frames (m): how long a body's bones are.
struct Body {
    Vec3 offsets[kJoints];
};

// Places and rotations of all joints in the world.
struct WorldPose {
    Vec3 position[kJoints];
    Quat rotation[kJoints];
};

inline void forward(const ModelPose& pose, const Body& body, WorldPose& out) noexcept {
    out.position[0] = pose.root;
    out.rotation[0] = pose.local[0];
    for (int j = 1; j < kJoints; ++j) {
        const int p = kParents[static_cast<std::size_t>(j)];
        out.rotation[j] = mul(out.rotation[p], pose.local[j]);
        out.position[j] = out.position[p] + rotate(out.rotation[p], body.offsets[j]);
    }
}

// Every number finite and every rotation of unit length within 1e-3.
inline bool sound(const ModelPose& pose) noexcept {
    bool ok = finite(pose.root);
    for (const Quat& q : pose.local) {
        const float n2 = dot(q, q);
        ok &= n2 > 0.998f && n2 < 1.002f;
    }
    return ok;
}

}  // namespace rti
