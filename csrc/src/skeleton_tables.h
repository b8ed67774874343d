// Tables of skeletons, axes and bone names; skeleton_tables.cpp is generated from rtinteract/assets/skeletons.json.
#pragma once

#include <cstddef>
#include <cstdint>

#include "pose.h"

namespace rti {
namespace tables {

template <class T>
struct Rows {
    const T* first;
    std::size_t count;
    const T* begin() const noexcept { return first; }
    const T* end() const noexcept { return first + count; }
    std::size_t size() const noexcept { return count; }
    const T& operator[](std::size_t i) const noexcept { return first[i]; }
};

// translation (m) and rotation (wxyz) in the parent's frame, in the model's axes; role is a Joint or -1.
struct JointRow {
    const char* name;
    std::int32_t parent, role;
    float translation[3], rotation[4];
};

struct PresetRow {
    const char* name;
    Rows<JointRow> joints;
};

struct AxesRow {
    const char* name;
    float to_model[9], metres_per_unit;
};

// Names of the joints of one family of skeletons without namespaces; nullptr where it lacks one.
struct FamilyRow {
    const char* joints[kJoints];
};

// Words for a joint, the likeliest first; left and right are the same joint for one on the midline.
struct AliasRow {
    std::int32_t left, right;
    Rows<const char*> words;
};

extern const Rows<PresetRow> presets;
extern const Rows<AxesRow> axes;
extern const Rows<FamilyRow> families;
extern const Rows<AliasRow> midline_aliases, sided_aliases;
extern const Rows<const char*> noise_words, spine_words, short_sided_words;
extern const char* const joint_names[kJoints];
// Joints without which a body cannot be posed.
extern const bool required[kJoints];
// The average body's offsets (m); in its T-pose, where each joint's bone points, and the joint to which (-1: to a tip).
extern const Body average_body;
extern const Vec3 bone_directions[kJoints];
extern const std::int32_t bone_ends[kJoints];

}  // namespace tables
}  // namespace rti
