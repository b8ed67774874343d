#include "restpose.h"

#include <algorithm>
#include <cmath>
#include <cstddef>

#include "skeleton_tables.h"

namespace rti {
namespace {

// Bones further off their direction than this (rad) are laid along it.
constexpr float kLooseEnd = 0.7f, kLooseTrunk = 1.05f;
// A pelvis closer than this to the coordinate axes is square to them.
constexpr float kSnap = 0.7f;
constexpr float kPi = 3.14159265358979f;
constexpr float kShort = 1e-9f;

std::size_t size(std::int32_t i) { return static_cast<std::size_t>(i); }

bool is_limb(int role) {
    switch (role) {
        case kLeftHip: case kRightHip: case kLeftKnee: case kRightKnee:
        case kLeftShoulder: case kRightShoulder: case kLeftElbow: case kRightElbow:
            return true;
        default:
            return false;
    }
}

bool is_end(int role) {
    switch (role) {
        case kLeftAnkle: case kRightAnkle: case kLeftFoot: case kRightFoot: case kLeftWrist: case kRightWrist:
            return true;
        default:
            return false;
    }
}

bool is_thumb(const std::string& name) {
    std::string low = name;
    for (char& c : low) c = c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
    return low.find("thumb") != std::string::npos;
}

// The skeleton with its bones in world axes as it stands at rest.
struct Standing {
    const RestPose& rest;
    const Roles& roles;
    std::vector<Quat> world;
    std::vector<Vec3> bones;

    Standing(const RestPose& pose, const Roles& its) : rest(pose), roles(its), world(pose.rotations), bones(pose.offsets) {
        for (std::size_t j = 0; j < world.size(); ++j) {
            const std::int32_t p = rest.parents[j];
            if (p < 0) continue;
            world[j] = normalize(mul(world[size(p)], rest.rotations[j]));
            bones[j] = rotate(world[size(p)], rest.offsets[j]);
        }
    }

    std::int32_t joint(int role) const { return roles[size(role)]; }

    // From one joint to another below it; zero where it is not below.
    Vec3 between_joints(std::int32_t top, std::int32_t bottom) const {
        Vec3 sum;
        for (; bottom > top; bottom = rest.parents[size(bottom)]) sum = sum + bones[size(bottom)];
        return bottom == top ? sum : Vec3{};
    }

    // The mean of what hangs on a joint, the thumb left out; of its first child where nothing does.
    Vec3 tip(std::int32_t joint) const {
        Vec3 sum;
        std::int32_t first = -1;
        float count = 0;
        for (std::size_t c = 0; c < bones.size(); ++c) {
            if (rest.parents[c] != joint || is_thumb(rest.names[c])) continue;
            if (first < 0) first = static_cast<std::int32_t>(c);
            if (length(bones[c]) <= kShort) continue;
            sum = sum + bones[c];
            ++count;
        }
        if (count > 0) return sum * (1 / count);
        return first < 0 ? Vec3{} : tip(first);
    }

    // Where the bone of a role points, zero where nothing tells.
    Vec3 direction(int role) const {
        const std::int32_t j = joint(role), end = tables::bone_ends[role];
        if (role == kSpine1 || role == kSpine2 || role == kSpine3) {
            for (const int other : {kSpine1, kSpine2, kSpine3, kNeck, kHead}) {
                if (other == role || joint(other) < 0) continue;
                const Vec3 way = between_joints(j, joint(other));
                if (length(way) > kShort) return way;
            }
            return {};
        }
        return end >= 0 && joint(end) >= 0 ? between_joints(j, joint(end)) : tip(j);
    }
};

Quat quat_of_axes(Vec3 x, Vec3 y, Vec3 z) {
    // Rows of the matrix: the rotation brings these three onto the coordinate axes. The largest component divides safely.
    const float t[4] = {1 + x.x + y.y + z.z, 1 + x.x - y.y - z.z, 1 - x.x + y.y - z.z, 1 - x.x - y.y + z.z};
    switch (std::max_element(t, t + 4) - t) {
        case 0: return normalize(Quat{t[0], z.y - y.z, x.z - z.x, y.x - x.y});
        case 1: return normalize(Quat{z.y - y.z, t[1], x.y + y.x, x.z + z.x});
        case 2: return normalize(Quat{x.z - z.x, x.y + y.x, t[2], y.z + z.y});
        default: return normalize(Quat{y.x - x.y, x.z + z.x, y.z + z.y, t[3]});
    }
}

// The nearest of the 24 rotations that keep a cube in place: their quaternions have components 0 and equal ones.
Quat nearest_quarter_turn(Quat q) {
    Quat best;
    for (int k = 0; k < 81; ++k) {
        const int c[4] = {k % 3 - 1, k / 3 % 3 - 1, k / 9 % 3 - 1, k / 27 - 1};
        const int n = c[0] * c[0] + c[1] * c[1] + c[2] * c[2] + c[3] * c[3];
        if (n == 0 || n == 3) continue;
        const Quat turn = normalize(Quat{float(c[0]), float(c[1]), float(c[2]), float(c[3])});
        if (dot(turn, q) > dot(best, q)) best = turn;
    }
    return best;
}

// Stands the pelvis upright and turns it to +Z, from its hips and its spine.
Quat pelvis_turn(const Standing& body) {
    const std::int32_t j = body.joint(kPelvis);
    const Vec3 across =
        body.between_joints(j, body.joint(kLeftHip)) - body.between_joints(j, body.joint(kRightHip));
    Vec3 up;
    for (const int role : {kSpine1, kSpine2, kSpine3, kNeck, kHead}) {
        if (length(up) < kShort && body.joint(role) >= 0) up = body.between_joints(j, body.joint(role));
    }
    if (length(across) < kShort || length(cross(across, up)) < kShort) return {};
    const Vec3 x = normalize(across), y = normalize(up - x * dot(up, x));
    const Quat q = quat_of_axes(x, y, cross(x, y));
    const Quat snapped = nearest_quarter_turn(q);
    return angle_between(q, snapped) < kSnap ? snapped : q;
}

// Twist an arm so that its thumb points forward: a swing alone, from a rest pose that is no T-pose, leaves the twist open.
// Quarter turns: a thumb lies between forward and palm, so its own direction is only a rough guide.
void thumb_forward(const Standing& body, bool left, std::vector<Quat>& turns) {
    const std::int32_t wrist = body.joint(left ? kLeftWrist : kRightWrist);
    const std::int32_t shoulder = body.joint(left ? kLeftShoulder : kRightShoulder);
    const std::int32_t collar = body.joint(left ? kLeftCollar : kRightCollar);
    std::size_t thumb = 0;
    while (thumb < turns.size() && !(body.rest.parents[thumb] == wrist && is_thumb(body.rest.names[thumb]))) ++thumb;
    if (thumb == turns.size()) return;
    const Vec3 axis{left ? 1.0f : -1.0f, 0, 0};
    Vec3 v = rotate(turns[size(wrist)], body.bones[thumb]);
    v = v - axis * dot(v, axis);
    if (length(v) < 0.3f * length(body.bones[thumb]) || v.z > 0.5f * length(v)) return;
    const float angle = std::atan2(dot(cross(v, {0, 0, 1}), axis), v.z);
    const Quat turn = from_axis_angle(axis, std::nearbyint(angle / (kPi / 2)) * (kPi / 2));
    for (std::size_t j = 0; j < turns.size(); ++j) {
        std::int32_t up = static_cast<std::int32_t>(j);
        while (up > shoulder) up = body.rest.parents[size(up)];
        if (up == shoulder || static_cast<std::int32_t>(j) == collar) turns[j] = mul(turn, turns[j]);
    }
}

}  // namespace

std::vector<Quat> t_pose(const RestPose& rest, const Roles& roles) {
    const Standing body(rest, roles);
    std::vector<Quat> turns(rest.names.size());
    for (std::size_t j = 0; j < turns.size(); ++j) {
        if (rest.parents[j] >= 0) turns[j] = turns[size(rest.parents[j])];
        const auto at = std::find(roles.begin(), roles.end(), static_cast<std::int32_t>(j));
        if (at == roles.end()) continue;
        const int role = static_cast<int>(at - roles.begin());
        if (role == kPelvis) {
            turns[j] = pelvis_turn(body);
            continue;
        }
        const Vec3 own = rotate(turns[j], body.direction(role)), wanted = tables::bone_directions[role];
        if (length(own) < kShort) continue;
        const float off = std::acos(std::clamp(dot(normalize(own), normalize(wanted)), -1.0f, 1.0f));
        if (is_limb(role) || off > (is_end(role) ? kLooseEnd : kLooseTrunk)) turns[j] = mul(between(own, wanted), turns[j]);
    }
    thumb_forward(body, true, turns);
    thumb_forward(body, false, turns);
    for (std::size_t j = 0; j < turns.size(); ++j) turns[j] = normalize(mul(turns[j], body.world[j]));
    return turns;
}

}  // namespace rti
