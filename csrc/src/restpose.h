// From a skeleton's rest pose, however it stands, to the T-pose in which all skeletons agree.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "jointmap.h"
#include "pose.h"

namespace rti {

// Translations (m) and rotations in the parents' frames, in the model's axes; a parent stands before its children.
struct RestPose {
    std::vector<std::string> names;
    std::vector<std::int32_t> parents;
    std::vector<Vec3> offsets;
    std::vector<Quat> rotations;
};

// World rotations of all joints in the T-pose: +Y up, facing +Z, left arm along +X. Limbs lie exactly along their directions;
// trunk, hands and feet keep their own shape unless far off, because a foot's or a spine's slope at rest is anatomy.
std::vector<Quat> t_pose(const RestPose& rest, const Roles& roles);

}  // namespace rti
