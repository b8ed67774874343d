// Which joint of a skeleton plays which SMPL-22 joint, told by its name.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "pose.h"

namespace rti {

// Index in the skeleton for each SMPL-22 joint, -1 where it has none.
using Roles = std::array<std::int32_t, kJoints>;

// By the table of a known family, else by the words in the names; throws std::invalid_argument naming what a body cannot do
// without and was not found.
Roles roles_of(const std::vector<std::string>& names);

}  // namespace rti
