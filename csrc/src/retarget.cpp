#include "retarget.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstring>
#include <iterator>
#include <stdexcept>

#include "skeleton_tables.h"

namespace rti {
namespace {

constexpr int kTrunk[] = {kPelvis, kSpine1, kSpine2, kSpine3, kNeck, kHead};
constexpr int kSides[2][3] = {{kLeftHip, kLeftKnee, kLeftAnkle}, {kRightHip, kRightKnee, kRightAnkle}};
constexpr int kArms[2][3] = {{kLeftShoulder, kLeftElbow, kLeftWrist}, {kRightShoulder, kRightElbow, kRightWrist}};
constexpr std::int32_t kMaxJoints = 4096;
constexpr float kShortest = 1e-3f;
// Distances (m) between a wrist and a bone of the partner: joined below kNear, as in a handshake, free beyond kFar, with a smooth
// passage so that no hand jumps.
constexpr float kNear = 0.20f, kFar = 0.40f, kSoft = 0.02f;

std::size_t size(std::int32_t i) { return static_cast<std::size_t>(i); }

[[noreturn]] void refuse(const std::string& text) { throw std::invalid_argument("skeleton: " + text); }

// The description, checked, in the model's axes.
RestPose checked(const SkeletonDesc& desc, const Basis& basis) {
    basis.check();
    if (desc.joints < 1 || desc.joints > kMaxJoints) {
        refuse("expected 1 to " + std::to_string(kMaxJoints) + " joints, got " + std::to_string(desc.joints) + "; leave out a "
               "face's or clothing's bones");
    }
    if (!desc.names || !desc.parents || !desc.rest_translations) {
        refuse("expected names, parents and rest translations, got a null pointer; give all three or name a preset");
    }
    RestPose rest;
    for (std::int32_t j = 0; j < desc.joints; ++j) {
        const std::string name = desc.names[j] ? desc.names[j] : "";
        const std::int32_t p = desc.parents[j];
        if (name.empty()) refuse("expected a name for joint " + std::to_string(j) + ", got none; name it");
        if ((j == 0) != (p == -1) || p >= j || p < -1) {
            refuse("expected a parent before joint " + std::to_string(j) + " (" + name + "), -1 for joint 0 only, got " +
                   std::to_string(p) + "; sort the joints so that parents come first");
        }
        const Vec3 offset = basis.vector_to_model(desc.rest_translations + 3 * j);
        const float one[4] = {1, 0, 0, 0};
        const float* q = desc.rest_rotations ? desc.rest_rotations + 4 * j : one;
        const float norm = std::sqrt(q[0] * q[0] + q[1] * q[1] + q[2] * q[2] + q[3] * q[3]);
        if (!finite(offset) || !(std::fabs(norm - 1) < 0.01f)) {
            refuse("expected a finite translation and a unit quaternion (wxyz) for joint " + std::to_string(j) + " (" + name +
                   "), got others; check the rest pose");
        }
        rest.names.push_back(name);
        rest.parents.push_back(p);
        rest.offsets.push_back(offset);
        rest.rotations.push_back(basis.rotation_to_model(q));
    }
    return rest;
}

Limb average_limb(const int (&chain)[3]) {
    return {length(tables::average_body.offsets[chain[1]]), length(tables::average_body.offsets[chain[2]])};
}

float smooth(float x) { return x * x * (3 - 2 * x); }

}  // namespace

Retarget::Retarget(const SkeletonDesc& skeleton, const Basis& basis) : basis_(basis) {
    const RestPose rest = checked(skeleton, basis);
    for (std::size_t k = 0; k < 9; ++k) turned_[k] = basis.to_model[k] * basis.handedness();
    set_nodes(rest, roles_of(rest.names));
    set_trunk();
    set_gaps();
    set_sizes();
    set_rig(rest);
}

const Body& Retarget::body() const noexcept { return tables::average_body; }

void Retarget::set_nodes(const RestPose& rest, const Roles& roles) {
    const std::vector<Quat> turns = t_pose(rest, roles);
    std::vector<std::int32_t> node(rest.names.size(), -1);
    for (std::int32_t joint : roles) {
        for (; joint >= 0 && node[size(joint)] < 0; joint = rest.parents[size(joint)]) node[size(joint)] = 0;
    }
    nodes_of_.fill(-1);
    for (std::size_t j = 0; j < node.size(); ++j) {
        if (node[j] < 0) continue;
        node[j] = static_cast<std::int32_t>(nodes_.size());
        const std::int32_t p = rest.parents[j];
        const auto role = std::find(roles.begin(), roles.end(), static_cast<std::int32_t>(j)) - roles.begin();
        const bool plays = size(static_cast<std::int32_t>(role)) < roles.size();
        if (plays) nodes_of_[static_cast<std::size_t>(role)] = node[j];
        nodes_.push_back({static_cast<std::int32_t>(j), p < 0 ? -1 : node[size(p)], plays ? static_cast<std::int32_t>(role) : -1,
                          -1, -1, 0, rest.offsets[j], turns[j]});
    }
    if (nodes_.size() > size(kMaxNodes)) {
        refuse("expected at most " + std::to_string(kMaxNodes) + " joints from the root to head, hands and feet, got " +
               std::to_string(nodes_.size()) + "; leave out chains that only follow");
    }
    to_hips_ = down_to({kPelvis, kLeftHip, kRightHip});
    to_ankles_ = down_to({kPelvis, kLeftAnkle, kRightAnkle});
    for (std::size_t n = 0; n < nodes_.size(); ++n) all_.push_back(static_cast<std::int32_t>(n));
}

// The nodes down to these roles, where the skeleton has them; parents first.
std::vector<std::int32_t> Retarget::down_to(std::initializer_list<int> roles) const {
    std::vector<std::int32_t> path;
    for (const int role : roles) {
        for (std::int32_t n = node_of(role); n >= 0; n = nodes_[size(n)].parent) path.push_back(n);
    }
    std::sort(path.begin(), path.end());
    path.erase(std::unique(path.begin(), path.end()), path.end());
    return path;
}

void Retarget::set_trunk() {
    int top = kPelvis;
    for (const int bottom : kTrunk) {
        if (bottom == kPelvis || node_of(bottom) < 0) continue;
        std::vector<std::int32_t> path;
        std::int32_t n = nodes_[size(node_of(bottom))].parent;
        for (; n > node_of(top); n = nodes_[size(n)].parent) path.push_back(n);
        for (std::size_t k = 0; n == node_of(top) && k < path.size(); ++k) {
            Node& node = nodes_[size(path[k])];
            if (node.role >= 0) continue;
            node.top = top;
            node.bottom = bottom;
            node.share = static_cast<float>(path.size() - k) / static_cast<float>(path.size() + 1);
        }
        top = bottom;
    }
}

void Retarget::set_gaps() {
    const int count = static_cast<int>(std::size(kTrunk));
    for (int i = 1; i < count; ++i) {
        if (node_of(kTrunk[i]) >= 0) continue;
        int before = i, after = i;
        while (node_of(kTrunk[before]) < 0) --before;
        while (after < count && node_of(kTrunk[after]) < 0) ++after;
        // The chest carries the arms: it takes the whole turn of the trunk joint below it, not part of the head's.
        const bool whole = after == count || (kTrunk[i] == kSpine3 && before > 0);
        const float share = whole ? 0 : static_cast<float>(i - before) / static_cast<float>(after - before);
        gaps_.push_back({kTrunk[i], kTrunk[before], kTrunk[whole ? before : after], share});
    }
    for (std::int32_t role = 1; role < kJoints; ++role) {
        const bool trunk = std::find(std::begin(kTrunk), std::end(kTrunk), role) != std::end(kTrunk);
        if (node_of(role) < 0 && !trunk) gaps_.push_back({role, kParents[size(role)], kParents[size(role)], 0});
    }
}

void Retarget::set_sizes() {
    Placed rest;
    for (std::size_t n = 0; n < nodes_.size(); ++n) rest.rotation[n] = nodes_[n].turn;
    stand({}, all_, rest);
    float own = 0, average = 0;
    for (int side = 0; side < 2; ++side) {
        const auto& leg = kSides[side];
        const auto& arm = kArms[side];
        legs_[side] = {length(at(rest, leg[1]) - at(rest, leg[0])), length(at(rest, leg[2]) - at(rest, leg[1]))};
        arms_[side] = {length(at(rest, arm[1]) - at(rest, arm[0])), length(at(rest, arm[2]) - at(rest, arm[1]))};
        if (std::min({legs_[side].upper, legs_[side].lower, arms_[side].upper, arms_[side].lower}) < kShortest) {
            refuse("expected arms and legs of bones longer than a millimetre, got a shorter one; check the rest translations and "
                   "the unit");
        }
        const Limb model = average_limb(leg);
        alike_[side] = std::fabs(legs_[side].upper * model.lower - legs_[side].lower * model.upper) < 1e-6f;
        own += legs_[side].upper + legs_[side].lower;
        average += average_limb(leg).upper + average_limb(leg).lower;
    }
    scale_ = ground_ = own / average;
    const bool toes = node_of(kLeftFoot) >= 0 && node_of(kRightFoot) >= 0;
    WorldPose body;
    forward(ModelPose{}, tables::average_body, body);
    const int left = toes ? kLeftFoot : kLeftAnkle, right = toes ? kRightFoot : kRightAnkle;
    drop_ = middle_of_hips(rest).y - std::min(at(rest, left).y, at(rest, right).y);
    average_drop_ = body.position[kLeftHip].y - body.position[left].y;
    for (std::int32_t role = 1; role < kJoints; ++role) {
        std::int32_t p = kParents[size(role)];
        while (node_of(p) < 0) p = kParents[size(p)];
        if (node_of(role) >= 0) bones_.push_back({p, role});
    }
}

void Retarget::set_rig(const RestPose& rest) {
    Rig& rig = rig_;
    rig.joints = static_cast<int>(rest.names.size());
    rig.nodes = static_cast<int>(nodes_.size());
    rig.packs = (rig.nodes + kPack - 1) / kPack;
    rig.metres_per_unit = basis_.metres_per_unit;
    rig.scale = scale_;
    rig.up = basis_.out({0, 1, 0});
    const auto node = [this](int role) { return static_cast<std::int8_t>(node_of(role)); };
    const auto either = [this, &node](std::initializer_list<int> roles) {
        for (const int role : roles)
            if (node_of(role) >= 0) return node(role);
        return node(kPelvis);
    };
    rig.pelvis = node(kPelvis);
    rig.chest = either({kSpine2, kSpine3, kSpine1});
    rig.head = node(kHead);
    rig.neck = either({kNeck, kHead});
    for (std::size_t j = 0; j < rest.rotations.size(); ++j) {
        if (std::any_of(nodes_.begin(), nodes_.end(), [j](const Node& n) { return size(n.joint) == j; })) continue;
        rig.still.push_back({static_cast<std::int32_t>(j), {}});
        basis_.rotation_from_model(rest.rotations[j], rig.still.back().wxyz);
    }
    for (const std::int32_t n : all_) {
        rig.all[n] = static_cast<std::int8_t>(n);
        rig.begin[n] = static_cast<std::int16_t>(4 * nodes_[size(n)].joint);
        rig.parent[n] = static_cast<std::int8_t>(nodes_[size(n)].parent);
        rig.offset[n] = basis_.out(nodes_[size(n)].offset);
    }
    std::fill(rig.begin + rig.nodes, rig.begin + kMaxNodes, rig.begin[rig.nodes - 1]);
    // An axis that bones turn about: as rotations, not as vectors.
    const auto own_axis = [&](int role, Vec3 axis) {
        const Vec3 v = rotate(conj(nodes_[size(node_of(role))].turn), axis);
        const Quat q = to_engine({0, v.x, v.y, v.z});
        return Vec3{q.x, q.y, q.z};
    };
    for (int side = 0; side < 2; ++side) {
        const auto &leg = kSides[side], &arm = kArms[side];
        const int toe = side == 0 ? kLeftFoot : kRightFoot;
        rig.legs[side] = {node(leg[0]), node(leg[1]), node(leg[2]), own_axis(leg[0], {1, 0, 0}), legs_[side].upper, legs_[side].lower};
        rig.arms[side] = {node(arm[0]), node(arm[1]), node(arm[2]), own_axis(arm[0], {0, side == 0 ? -1.0f : 1.0f, 0}),
                          arms_[side].upper, arms_[side].lower};
        rig.toes[side] = either({toe, leg[2]});
    }
    if (node_of(kLeftFoot) < 0) rig.toe_height = -tables::average_body.offsets[kLeftFoot].y * scale_;
    const Node& pelvis = nodes_[size(node_of(kPelvis))];
    rig.pelvis_turn = to_engine(pelvis.turn);
    if (pelvis.parent >= 0) rig.above = to_engine(nodes_[size(pelvis.parent)].turn);
    rig.head_up = basis_.out(rotate(conj(nodes_[size(node_of(kHead))].turn), {0, 1, 0}));
    for (const std::int32_t n : down_to({kPelvis, kLeftKnee, kRightKnee, kLeftAnkle, kRightAnkle, kLeftFoot, kRightFoot}))
        rig.feet[rig.feet_nodes++] = static_cast<std::int8_t>(n);
}

Quat Retarget::read(const float* q) const noexcept {
    const float* m = turned_;
    return normalize(Quat{q[0], m[0] * q[1] + m[1] * q[2] + m[2] * q[3], m[3] * q[1] + m[4] * q[2] + m[5] * q[3],
                          m[6] * q[1] + m[7] * q[2] + m[8] * q[3]});
}

Quat Retarget::to_engine(Quat q) const noexcept {
    const float* m = turned_;
    return tidy(Quat{q.w, m[0] * q.x + m[3] * q.y + m[6] * q.z, m[1] * q.x + m[4] * q.y + m[7] * q.z,
                     m[2] * q.x + m[5] * q.y + m[8] * q.z});
}

// Positions of these nodes, parents first, for the rotations there, with the pelvis at that place.
void Retarget::stand(Vec3 pelvis, const std::vector<std::int32_t>& nodes, Placed& out) const noexcept {
    for (const std::int32_t n : nodes) {
        const Node& node = nodes_[size(n)];
        out.position[n] = node.parent < 0 ? Vec3{} : out.position[node.parent] + rotate(out.rotation[node.parent], node.offset);
    }
    const Vec3 shift = pelvis - at(out, kPelvis);
    for (const std::int32_t n : nodes) out.position[n] = out.position[n] + shift;
}

void Retarget::turn(const float* local_wxyz, Placed& out) const noexcept {
    for (std::size_t n = 0; n < nodes_.size(); ++n) {
        const Quat local = read(local_wxyz + 4 * nodes_[n].joint);
        out.rotation[n] = nodes_[n].parent < 0 ? local : tidy(mul(out.rotation[nodes_[n].parent], local));
    }
}

// A node's rotation in its parent's frame, in the engine's axes.
Quat Retarget::local(std::int32_t node, const Placed& placed) const noexcept {
    const Node& n = nodes_[size(node)];
    const Quat world = placed.rotation[node];
    return to_engine(n.parent < 0 ? world : mul(conj(placed.rotation[n.parent]), world));
}

void Retarget::to_model(const float* root_xyz, const float* local_wxyz, ModelPose& out) const noexcept {
    Placed placed;
    turn(local_wxyz, placed);
    stand(basis_.vector_to_model(root_xyz), to_ankles_, placed);
    Quat turns[kJoints];
    for (int role = 0; role < kJoints; ++role) {
        const std::int32_t n = node_of(role);
        if (n >= 0) turns[role] = mul(placed.rotation[n], conj(nodes_[size(n)].turn));
    }
    for (const Gap& gap : gaps_) {
        turns[gap.role] = gap.share > 0 ? slerp(turns[gap.from], turns[gap.to], gap.share) : turns[gap.from];
    }
    for (int side = 0; side < 2; ++side) {
        if (alike_[side]) continue;
        const auto& leg = kSides[side];
        const Vec3 knee = at(placed, leg[1]);
        const LimbTurns fit = same_line(knee - at(placed, leg[0]), at(placed, leg[2]) - knee, legs_[side], average_limb(leg));
        turns[leg[0]] = mul(fit.upper, turns[leg[0]]);
        turns[leg[1]] = mul(fit.lower, turns[leg[1]]);
    }
    out.local[0] = tidy(turns[0]);
    for (int j = 1; j < kJoints; ++j) out.local[j] = tidy(mul(conj(turns[kParents[static_cast<std::size_t>(j)]]), turns[j]));
    const Vec3 middle = middle_of_hips(placed);
    const Vec3* offsets = tables::average_body.offsets;
    const Vec3 hips = rotate(out.local[0], (offsets[kLeftHip] + offsets[kRightHip]) * 0.5f);
    out.root = Vec3{middle.x / ground_, (middle.y - drop_) / scale_ + average_drop_, middle.z / ground_} - hips;
}

void Retarget::from_model(const ModelPose& pose, float* root_xyz, float* local_wxyz) const noexcept {
    Lanes lanes;
    to_lanes(pose, lanes);
    rig_.write(lanes, local_wxyz);
    rig_.write_root(lanes.root, root_xyz);
}

void Retarget::to_lanes(const ModelPose& pose, Lanes& out) const noexcept {
    Quat turns[kJoints];
    turns[0] = tidy(pose.local[0]);
    for (int j = 1; j < kJoints; ++j) turns[j] = tidy(mul(turns[kParents[size(j)]], pose.local[j]));
    const Vec3* offsets = tables::average_body.offsets;
    const Vec3 middle = pose.root + rotate(turns[0], (offsets[kLeftHip] + offsets[kRightHip]) * 0.5f);
    for (int side = 0; side < 2; ++side) {
        if (alike_[side]) continue;
        const auto& leg = kSides[side];
        const LimbTurns fit = same_line(rotate(turns[leg[0]], offsets[leg[1]]), rotate(turns[leg[1]], offsets[leg[2]]),
                                        average_limb(leg), legs_[side]);
        turns[leg[0]] = mul(fit.upper, turns[leg[0]]);
        turns[leg[1]] = mul(fit.lower, turns[leg[1]]);
    }
    Placed placed;
    Quat away[kMaxNodes];
    for (std::size_t n = 0; n < nodes_.size(); ++n) {
        const Node& node = nodes_[n];
        if (node.role >= 0) away[n] = turns[node.role];
        // Half-way, the straight interpolation is the spherical one.
        else if (node.top >= 0) away[n] = (node.share == 0.5f ? nlerp : slerp)(turns[node.top], turns[node.bottom], node.share);
        else if (node.parent >= 0) away[n] = away[node.parent];
        placed.rotation[n] = mul(away[n], node.turn);
    }
    for (const std::int32_t n : all_) out.set(n, local(n, placed));
    stand({}, to_hips_, placed);
    const Vec3 there{middle.x * ground_, (middle.y - average_drop_) * scale_ + drop_, middle.z * ground_};
    out.root = basis_.out(there - middle_of_hips(placed));
}

// Where a wrist belongs beside this body as it stands in the engine, `they`, and how strongly (0 to 1), from where it is beside
// the model's, `theirs`.
Vec3 Retarget::beside(Vec3 wrist, const WorldPose& theirs, const Placed& they, float& weight) const noexcept {
    Vec3 sum;
    float total = 0, loose = 1;
    for (const Bone& bone : bones_) {
        const Vec3 start = theirs.position[bone.upper], along = theirs.position[bone.lower] - start;
        const float share = std::clamp(dot(wrist - start, along) / std::max(dot(along, along), 1e-12f), 0.0f, 1.0f);
        const Vec3 off = wrist - start - along * share;
        const float distance = length(off);
        if (distance >= kFar) continue;
        const float pull = (kFar - distance) / (distance + kSoft);
        sum = sum + (lerp(at(they, bone.upper), at(they, bone.lower), share) + off * ground_) * (pull * pull);
        total += pull * pull;
        loose *= 1 - smooth(std::min((kFar - distance) / (kFar - kNear), 1.0f));
    }
    weight = total > 1e-12f ? 1 - loose : 0;
    return sum * (1 / std::max(total, 1e-12f));
}

void Retarget::reach(const ModelPose& own, const ModelPose& partner, const Retarget& partner_map, const float* partner_root,
                     const float* partner_local, const float* root_xyz, float strength, float* local_wxyz) const noexcept {
    WorldPose mine, theirs;
    forward(own, tables::average_body, mine);
    forward(partner, tables::average_body, theirs);
    Placed me, they;
    turn(local_wxyz, me);
    stand(basis_.vector_to_model(root_xyz), all_, me);
    partner_map.turn(partner_local, they);
    partner_map.stand(partner_map.basis_.vector_to_model(partner_root), partner_map.all_, they);
    for (int side = 0; side < 2; ++side) {
        const auto& arm = kArms[side];
        float weight = 0;
        const Vec3 wanted = partner_map.beside(mine.position[arm[2]], theirs, they, weight);
        if (!(weight > 0)) continue;
        const Vec3 from = at(me, arm[0]), elbow = at(me, arm[1]), hand = at(me, arm[2]);
        const Quat away = mul(me.rotation[node_of(arm[0])], conj(nodes_[size(node_of(arm[0]))].turn));
        // A straight arm bends its elbow so that the hand comes forward.
        const LimbTurns turn = reaching(elbow - from, hand - elbow, lerp(hand, wanted, weight * strength) - from,
                                        rotate(away, {0, side == 0 ? -1.0f : 1.0f, 0}));
        std::int32_t n = nodes_[size(node_of(arm[2]))].parent;
        for (const int k : {1, 0}) {
            const std::int32_t above = nodes_[size(node_of(arm[k]))].parent;
            for (; n > above; n = nodes_[size(n)].parent) me.rotation[n] = mul(k == 1 ? turn.lower : turn.upper, me.rotation[n]);
        }
        for (const int role : arm) rig_.set(node_of(role), local(node_of(role), me), local_wxyz);
    }
}

}  // namespace rti
