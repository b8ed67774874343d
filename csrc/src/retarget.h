// Poses between an engine's skeleton and the model's, through their T-poses.
#pragma once

#include <array>
#include <cstdint>
#include <initializer_list>
#include <string>
#include <vector>

#include "limbs.h"
#include "pose.h"
#include "restpose.h"
#include "rig.h"
#include "skeleton.h"

namespace rti {

// Immutable but for share_ground(); any thread may use it. The model's side is always the average body: legs span the same line on
// both, scaled with their length, so feet stand where they stood; heights are scaled so that soles stay on the floor. Joints that
// play no part stay at rest in their parent's frame, and those above the pelvis at rest in the world.
class Retarget {
public:
    // Copies what it needs. Throws std::invalid_argument: what, expected, got, what to do.
    Retarget(const SkeletonDesc& skeleton, const Basis& basis);

    int joints() const noexcept { return rig_.joints; }
    const Rig& rig() const noexcept { return rig_; }
    const Basis& basis() const noexcept { return basis_; }
    // The average body, on which all model poses of this mapping stand.
    const Body& body() const noexcept;
    // This skeleton's leg length in the average body's.
    float leg_scale() const noexcept { return scale_; }

    // root_xyz: the pelvis in the world (not a root bone above it), in the engine's unit and axes; local_wxyz [J][4]: each joint's
    // rotation in its parent's frame, joint 0's in the world. Neither allocates.
    void to_model(const float* root_xyz, const float* local_wxyz, ModelPose& out) const noexcept;
    void from_model(const ModelPose& pose, float* root_xyz, float* local_wxyz) const noexcept;
    // The same as what is shown: rig().write() then gives the engine's rotations.
    void to_lanes(const ModelPose& pose, Lanes& out) const noexcept;

    // For two people of different size: both walk over the ground by the mean of their scales, or one would slide away from the
    // other; before the first pose.
    friend void share_ground(Retarget& a, Retarget& b) noexcept { a.ground_ = b.ground_ = 0.5f * (a.scale_ + b.scale_); }

    // Turns shoulders, elbows and wrists of a pose from from_model() so that hands which touch the partner in the model touch the
    // same places of the partner's own body, as far as the arms reach, by `strength` (0 to 1) of the way. `partner_*` is how the partner stands in
    // the engine.
    void reach(const ModelPose& own, const ModelPose& partner, const Retarget& partner_map, const float* partner_root,
               const float* partner_local, const float* root_xyz, float strength, float* local_wxyz) const noexcept;

private:
    // A joint that plays a part, or carries one that does. turn: its world rotation in the T-pose. Between two trunk joints it
    // takes `share` of the way from one's turn to the other's.
    struct Node {
        std::int32_t joint, parent, role, top, bottom;
        float share;
        Vec3 offset;
        Quat turn;
    };
    // An SMPL-22 joint that the skeleton lacks: it turns as `from` does, or between two.
    struct Gap {
        std::int32_t role, from, to;
        float share;
    };
    // A bone that both bodies have, by the SMPL-22 joints at its ends.
    struct Bone {
        std::int32_t upper, lower;
    };

    void set_nodes(const RestPose& rest, const Roles& roles);
    void set_trunk();
    void set_gaps();
    void set_sizes();
    void set_rig(const RestPose& rest);
    std::int32_t node_of(int role) const noexcept { return nodes_of_[static_cast<std::size_t>(role)]; }
    Vec3 at(const Placed& placed, int role) const noexcept { return placed.position[node_of(role)]; }
    Quat read(const float* wxyz) const noexcept;
    Quat to_engine(Quat q) const noexcept;
    std::vector<std::int32_t> down_to(std::initializer_list<int> roles) const;
    void turn(const float* local_wxyz, Placed& out) const noexcept;
    void stand(Vec3 pelvis, const std::vector<std::int32_t>& nodes, Placed& out) const noexcept;
    Vec3 beside(Vec3 wrist, const WorldPose& theirs, const Placed& they, float& weight) const noexcept;
    Vec3 middle_of_hips(const Placed& placed) const noexcept { return (at(placed, kLeftHip) + at(placed, kRightHip)) * 0.5f; }
    Quat local(std::int32_t node, const Placed& placed) const noexcept;

    Rig rig_;
    Basis basis_;
    // The basis for axes of rotations: in a mirrored frame every turn is seen the other way round.
    float turned_[9];
    std::vector<Node> nodes_;
    // All nodes, those down to the ankles, those down to the hips.
    std::vector<std::int32_t> all_, to_ankles_, to_hips_;
    std::array<std::int32_t, kJoints> nodes_of_;
    std::vector<Gap> gaps_;
    std::vector<Bone> bones_;
    Limb legs_[2], arms_[2];
    bool alike_[2];
    float scale_ = 1, ground_ = 1, drop_ = 0, average_drop_ = 0;
};

}  // namespace rti
