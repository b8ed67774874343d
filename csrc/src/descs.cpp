#include "descs.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <memory>

namespace rti {
namespace {

// Sizes that a struct had when it was first published: a caller may be that old.
constexpr std::size_t kSessionDesc_1_0 = offsetof(rti_session_desc, foot_lock);

template <class T>
T read_as(const T& from, const T& defaults, std::size_t least, const char* name) {
    T out = defaults;
    if (from.struct_size < least || from.struct_size > 4096)
        throw Failure{RTI_E_VERSION, std::string(name) + ".struct_size: expected " + std::to_string(least) + " to 4096 bytes, got " +
                                         std::to_string(from.struct_size) + "; initialise it with the INIT macro"};
    std::memcpy(&out, &from, std::min<std::size_t>(from.struct_size, sizeof(T)));
    return out;
}

Basis basis_of(const rti_skeleton_desc& desc) {
    static constexpr const char* kNames[] = {"rtinteract", "unreal", "unity", "godot"};
    if (desc.axes >= RTI_AXES_RTINTERACT && desc.axes <= RTI_AXES_GODOT) return Basis::preset(kNames[desc.axes]);
    require(desc.axes == RTI_AXES_CUSTOM, "skeleton.axes: expected an RTI_AXES_... value, got another; see rtinteract.h");
    Basis basis;
    std::copy_n(desc.basis, 9, basis.to_model);
    basis.metres_per_unit = desc.metres_per_unit;
    return basis;
}

void check_lengths(const rti_session_desc& d) {
    const std::int32_t hop = d.hop ? d.hop : 4;
    require(d.window >= 0 && d.window <= 1024 && d.window % 4 == 0, "session.window: expected 0 or a multiple of 4 up to 1024 frames");
    require(d.horizon >= 0 && d.horizon <= kMaxHorizon && d.horizon % 4 == 0,
            "session.horizon: expected 0 or a multiple of 4 up to 64 frames");
    require(hop > 0 && hop <= kMaxHop && hop % 4 == 0, "session.hop: expected 0 or a multiple of 4 up to 32 frames");
    require(d.iterations >= 0 && d.iterations <= 64, "session.iterations: expected 0 to 64");
    const auto seconds = [](float s) { return s >= 0 && s <= 3600; };
    require(seconds(d.blend_s) && seconds(d.settle_s) && seconds(d.idle_after_s),
            "session.blend_s, settle_s, idle_after_s: expected 0 to 3600 seconds");
    require(d.idle_count >= 0 && d.idle_count <= 100000 && (d.idle || d.idle_count == 0),
            "session.idle_count: expected as many poses as session.idle holds, at most 100000");
    const auto share = [](float s) { return s >= 0 && s <= 1; };
    require(share(d.foot_lock) && share(d.push_out) && share(d.hands), "session.foot_lock, push_out, hands: expected 0 to 1");
    check_flags(d.flags);
}

ModelPose idle_pose(const rti_pose& pose, const Retarget& map) {
    bool good = pose.joint_count == map.joints() && pose.rotations && finite(Vec3{pose.root[0], pose.root[1], pose.root[2]});
    for (std::int32_t j = 0; good && j < pose.joint_count; ++j) {
        const float* q = pose.rotations + 4 * j;
        const float n2 = q[0] * q[0] + q[1] * q[1] + q[2] * q[2] + q[3] * q[3];
        good = n2 > 0.98f && n2 < 1.02f;
    }
    ModelPose out;
    if (good) map.to_model(pose.root, pose.rotations, out);
    require(good && sound(out), "session.idle: expected finite poses of unit quaternions for the reactor's joints, got others",
            RTI_E_POSE);
    return out;
}

}  // namespace

void require(bool condition, const char* text, rti_status status) {
    if (!condition) throw Failure{status, text};
}

rti_model_desc read(const rti_model_desc& from) {
    const rti_model_desc defaults = RTI_MODEL_DESC_INIT;
    return read_as(from, defaults, sizeof(rti_model_desc), "model");
}

rti_session_desc read(const rti_session_desc& from) {
    const rti_session_desc defaults = RTI_SESSION_DESC_INIT;
    return read_as(from, defaults, kSessionDesc_1_0, "session");
}

void check_version(std::uint32_t asked, const char* name) {
    if (asked >> 16 != RTI_ABI_VERSION >> 16 || (asked & 0xffffu) > (RTI_ABI_VERSION & 0xffffu))
        throw Failure{RTI_E_VERSION, std::string(name) + ".abi_version: expected major " + std::to_string(RTI_ABI_VERSION >> 16) +
                                         " and minor up to " + std::to_string(RTI_ABI_VERSION & 0xffffu) + ", got " +
                                         std::to_string(asked >> 16) + "." + std::to_string(asked & 0xffffu) +
                                         "; use a library as new as the header"};
}

void check_flags(std::uint32_t flags) {
    require(flags <= 31, "flags: expected RTI_FLAG_... values, got an unknown one; use a library as new as the header", RTI_E_VERSION);
}

void check_container(const unsigned char* bytes, std::size_t have, std::uint64_t size) {
    std::uint64_t header = 0;
    for (int i = 7; have >= 9 && i >= 0; --i) header = header << 8 | bytes[i];
    require(have >= 9 && bytes[8] == '{' && header >= 2 && header <= size - 8,
            "model: expected a .safetensors file, got other or too few bytes; give a model of rtinteract", RTI_E_FORMAT);
}

void check_file(const char* path) {
    const std::unique_ptr<std::FILE, int (*)(std::FILE*)> file(std::fopen(path, "rb"), &std::fclose);
    if (!file) throw Failure{RTI_E_FILE, std::string(path) + ": expected a model file, got none that can be read; check the path"};
    unsigned char bytes[9];
    const std::size_t have = std::fread(bytes, 1, sizeof bytes, file.get());
    std::fseek(file.get(), 0, SEEK_END);
    const long size = std::ftell(file.get());
    check_container(bytes, have, size < 0 ? 0 : static_cast<std::uint64_t>(size));
}

std::string text_of(const char* text, const char* otherwise) { return text ? text : otherwise; }

Person person_of(const rti_skeleton_desc* from) {
    const rti_skeleton_desc defaults = RTI_SKELETON_DESC_INIT;
    const rti_skeleton_desc desc = from ? read_as(*from, defaults, sizeof(rti_skeleton_desc), "skeleton") : defaults;
    const Basis basis = basis_of(desc);
    SkeletonDesc skeleton;
    std::unique_ptr<PresetSkeleton> preset;
    if (desc.preset) {
        preset = std::make_unique<PresetSkeleton>(desc.preset, basis);
        skeleton = preset->desc();
    } else {
        skeleton.joints = desc.joint_count;
        skeleton.names = desc.names;
        skeleton.parents = desc.parents;
        skeleton.rest_translations = desc.rest_translations;
        skeleton.rest_rotations = desc.rest_rotations;
    }
    Person person{std::make_unique<Retarget>(skeleton, basis), {}};
    person.names.assign(skeleton.names, skeleton.names + skeleton.joints);
    return person;
}

SessionConfig config_of(const rti_session_desc& d, const Retarget& reactor) {
    check_lengths(d);
    SessionConfig config;
    config.settings = {d.seed, d.window, d.horizon, d.hop, d.iterations, text_of(d.prompt), (d.flags & RTI_FLAG_CONTACT) != 0};
    config.policy.hop_s = (d.hop ? d.hop : 4) / kFps;
    config.policy.blend_s = d.blend_s;
    config.policy.settle_s = d.settle_s;
    config.policy.idle_after_s = d.idle_after_s;
    config.flags = d.flags;
    config.strength = {d.foot_lock, d.push_out, d.hands};
    for (std::int32_t i = 0; i < d.idle_count; ++i) {
        require(d.idle[i].struct_size == sizeof(rti_pose), "session.idle: expected poses made with RTI_POSE_INIT", RTI_E_VERSION);
        config.policy.idle.push_back(idle_pose(d.idle[i], reactor));
    }
    return config;
}

}  // namespace rti
