// An engine's skeleton and axes, as it describes them or by a preset's name.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "math.h"

namespace rti {

// What the caller owns and keeps for the time of a call. A parent stands before its children, -1 for joint 0.
struct SkeletonDesc {
    std::int32_t joints = 0;
    const char* const* names = nullptr;
    const std::int32_t* parents = nullptr;
    const float* rest_translations = nullptr;  // [J][3] in the parent's frame, the engine's unit and axes
    const float* rest_rotations = nullptr;     // [J][4] wxyz in the parent's frame; nullptr: none is turned
};

// The engine's axes: row-major, its vectors to +X left, +Y up, +Z forward, right-handed.
struct Basis {
    float to_model[9] = {1, 0, 0, 0, 1, 0, 0, 0, 1};
    float metres_per_unit = 1;

    // "rtinteract", "unreal", "unity", "godot" or "gltf"; throws std::invalid_argument for another name.
    static Basis preset(const std::string& name);

    // Throws std::invalid_argument unless the rows are of unit length and square to each other, and the unit positive.
    void check() const;

    // -1 for left-handed axes: a mirrored frame sees every turn the other way round.
    float handedness() const noexcept {
        const float* m = to_model;
        return dot(cross(Vec3{m[0], m[1], m[2]}, Vec3{m[3], m[4], m[5]}), Vec3{m[6], m[7], m[8]}) < 0 ? -1.0f : 1.0f;
    }

    // Directions: without the unit.
    Vec3 in(Vec3 v) const noexcept {
        const float* m = to_model;
        return {m[0] * v.x + m[1] * v.y + m[2] * v.z, m[3] * v.x + m[4] * v.y + m[5] * v.z, m[6] * v.x + m[7] * v.y + m[8] * v.z};
    }
    Vec3 out(Vec3 v) const noexcept {
        const float* m = to_model;
        return {m[0] * v.x + m[3] * v.y + m[6] * v.z, m[1] * v.x + m[4] * v.y + m[7] * v.z, m[2] * v.x + m[5] * v.y + m[8] * v.z};
    }

    Vec3 vector_to_model(const float* xyz) const noexcept { return in({xyz[0], xyz[1], xyz[2]}) * metres_per_unit; }
    void vector_from_model(Vec3 v, float* xyz) const noexcept {
        const Vec3 e = out(v) * (1 / metres_per_unit);
        xyz[0] = e.x;
        xyz[1] = e.y;
        xyz[2] = e.z;
    }
    Quat rotation_to_model(const float* wxyz) const noexcept {
        const Vec3 v = in({wxyz[1], wxyz[2], wxyz[3]}) * handedness();
        return normalize(Quat{wxyz[0], v.x, v.y, v.z});
    }
    void rotation_from_model(Quat q, float* wxyz) const noexcept {
        const Vec3 v = out({q.x, q.y, q.z}) * handedness();
        wxyz[0] = q.w;
        wxyz[1] = v.x;
        wxyz[2] = v.y;
        wxyz[3] = v.z;
    }
};

// A preset's bones and rest pose in an engine's unit and axes. The bones' own axes are the engine's where the preset is at home
// (ue4 and ue5 in unreal, mixamo and vrm in gltf or unity, unity, godot); an importer may have turned them elsewhere: then give
// the rest pose that the engine shows.
class PresetSkeleton {
public:
    // "smpl22", "ue5", "ue4", "unity", "mixamo", "vrm" or "godot"; throws std::invalid_argument for another name.
    PresetSkeleton(const std::string& name, const Basis& basis);

    // Valid as long as this object is.
    SkeletonDesc desc() const noexcept;

private:
    std::vector<const char*> names_;
    std::vector<std::int32_t> parents_;
    std::vector<float> translations_, rotations_;
};

}  // namespace rti
