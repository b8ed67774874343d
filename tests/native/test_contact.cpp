// The last passes, on skeletons of several proportions, axes and units.
#include "check.h"
#include "moving.h"

// What the engine shows of lanes after the passes: where its joints are, by plain forward kinematics of what was written.
struct Shown {
    explicit Shown(const Retarget& map) : map_(map), rotations_(4 * static_cast<std::size_t>(map.joints())) {}

    void begin(const ModelPose& pose) {
        map_.to_lanes(pose, lanes);
        const Rig& rig = map_.rig();
        rig.write(lanes, rotations_.data());
        rig.stand(lanes.root, rotations_.data(), rig.all, rig.nodes, placed);
    }
    float* rotations() { return rotations_.data(); }
    void look(Placed& out) const {
        const Rig& rig = map_.rig();
        Lanes written = lanes;
        for (int n = 0; n < rig.nodes; ++n) {
            const float* q = rotations_.data() + rig.begin[n];
            written.set(n, {q[0], q[1], q[2], q[3]});
        }
        unit = sound(written, rig.packs);
        rig.stand(lanes.root, rotations_.data(), rig.all, rig.nodes, out);
    }

    Lanes lanes;
    Placed placed;
    mutable bool unit = false;

private:
    const Retarget& map_;
    std::vector<float> rotations_;
};

// Skeletons of other proportions, axes and units than the model's, bones above the pelvis among them.
static std::vector<Retarget> several_maps() {
    std::vector<Retarget> maps;
    for (const auto& [name, axes] : {std::pair<const char*, const char*>{"smpl22", "rtinteract"}, {"ue5", "unreal"}, {"unity", "unity"}}) {
        const Basis basis = Basis::preset(axes);
        maps.emplace_back(PresetSkeleton(name, basis).desc(), basis);
    }
    return maps;
}

TEST(a_limb_reaches_what_it_can) {
    for (const Retarget& map : several_maps()) {
        const Rig& rig = map.rig();
        for (const Vec3 way : {Vec3{0.1f, 0.2f, 0.15f}, Vec3{-0.02f, 0.05f, 0.2f}, Vec3{3, 0, 0}}) {
            Shown it(map);
            ModelPose pose = walker(0.4);
            pose.root = {0, 0.96f, 0};
            it.begin(pose);
            const Chain& leg = rig.legs[0];
            const Quat ankle = it.placed.rotation[leg.end()];
            const Vec3 hip = it.placed.position[leg.upper()], target = it.placed.position[leg.end()] + map.basis().out(way);
            reach(rig, {&leg, target}, it.placed, it.rotations());
            Placed again;
            it.look(again);
            CHECK(it.unit);
            CHECK_AT_MOST(length(again.position[leg.end()] - it.placed.position[leg.end()]), 2e-4);
            CHECK_AT_MOST(angle_between(again.rotation[leg.end()], ankle), 1e-3);
            const float over = std::max(0.0f, length(target - hip) - 0.998f * (leg.lengths[0] + leg.lengths[1]));
            CHECK_AT_MOST(length(again.position[leg.end()] - target), over + 2e-3);
        }
    }
}

TEST(planted_feet_stay) {
    // Someone who stands while a fault of the motion lets the whole body glide.
    for (const Retarget& map : several_maps()) {
        const Rig& rig = map.rig();
        FootLock lock;
        Vec3 first, free_first;
        float glide = 0, slide = 0, jump = 0;
        Placed last;
        for (int i = 0; i < 40; ++i) {
            Shown it(map);
            ModelPose pose;
            pose.root = {0.002f * static_cast<float>(i), 0.94f, 0};
            it.begin(pose);
            const Vec3 free = it.placed.position[rig.legs[0].end()];
            lock.apply(rig, it.placed, 1 / 60.0f, 1, it.rotations());
            Placed again;
            it.look(again);
            const Vec3 held = again.position[rig.legs[0].end()];
            if (i == 2) first = held, free_first = free;
            if (i > 2) {
                glide = std::max(glide, length(free - free_first));
                slide = std::max(slide, length(held - first));
                for (int n = 0; n < rig.nodes; ++n) jump = std::max(jump, angle_between(last.rotation[n], again.rotation[n]));
            }
            last = again;
            CHECK(it.unit);
        }
        CHECK(glide > 0.07f);
        CHECK_AT_MOST(slide, 0.004);
        CHECK_AT_MOST(jump, 0.03);
    }
}

TEST(two_looks_at_one_moment_move_no_foot) {
    for (const Retarget& map : several_maps()) {
        FootLock lock;
        Shown it(map);
        for (int i = 0; i < 30; ++i) {
            ModelPose pose;
            pose.root = {0.002f * static_cast<float>(i), 0.94f, 0};
            Vec3 held[2];
            for (int k = 0; k < 2; ++k) {
                it.begin(pose);
                lock.apply(map.rig(), it.placed, k == 0 ? 1 / 60.0f : 0, 1, it.rotations());
                Placed again;
                it.look(again);
                held[k] = again.position[map.rig().legs[1].end()];
            }
            CHECK_AT_MOST(length(held[1] - held[0]), 1e-5);
        }
    }
}

TEST(bodies_are_pushed_apart_without_a_jump) {
    for (const Retarget& map : several_maps()) {
        const Rig& rig = map.rig();
        PushOut push;
        Shown other(map);
        ModelPose pose;
        pose.root = {0, 0.94f, 0};
        other.begin(pose);
        const Obstacle actor = obstacle_of(rig, other.placed);
        Vec3 last;
        for (int i = 0; i < 120; ++i) {
            Shown it(map);
            pose.root = {0, 0.94f, std::max(0.1f, 1 - 0.02f * static_cast<float>(i))};
            it.begin(pose);
            Vec3 way;
            const float depth = push.apply(rig, it.placed, actor, 1 / 60.0f, 1, way, it.rotations());
            const Vec3 root = it.lanes.root + way;
            if (i == 119) {
                CHECK(depth > 0.15f * rig.scale);
                CHECK(length(root - other.lanes.root) > 0.29f * rig.scale);
                CHECK(std::fabs(dot(way, rig.up)) < 1e-4f);
            }
            if (i > 0) CHECK_AT_MOST(length(root - last), 0.06);
            last = root;
            Placed again;
            it.look(again);
            CHECK(it.unit);
        }
    }
}

TEST(hands_are_kept_out_of_a_body) {
    for (const Retarget& map : several_maps()) {
        const Rig& rig = map.rig();
        Shown it(map), other(map);
        ModelPose pose;
        pose.root = {0, 0.94f, 0};
        // The left arm reaches forward, into someone who stands there.
        pose.local[kLeftShoulder] = from_axis_angle({0, 1, 0}, -1.4f);
        it.begin(pose);
        const Vec3 hand = it.placed.position[rig.arms[0].end()];
        ModelPose there;
        there.root = map.basis().in(hand - rig.up * (dot(hand, rig.up) - 0.94f * rig.scale));
        there.root.x += 0.05f;
        other.begin(there);
        PushOut push;
        Vec3 way;
        const float depth = push.apply(rig, it.placed, obstacle_of(rig, other.placed), 1 / 60.0f, 1, way, it.rotations());
        Placed again;
        it.look(again);
        CHECK(it.unit && depth > 0.02f && length(again.position[rig.arms[0].end()] - hand) > 0.02f);
        CHECK_AT_MOST(length(again.position[rig.arms[0].end()] + way - it.placed.position[rig.arms[0].end()]), 1e-3);
    }
}
