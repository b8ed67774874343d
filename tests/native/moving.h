// People who move by formula, and a planner of the tests' own.
#pragma once

#include <atomic>
#include <chrono>
#include <cmath>
#include <functional>
#include <limits>
#include <map>
#include <memory>
#include <set>
#include <thread>
#include <vector>

#include "../../csrc/src/skeleton_tables.h"
#include "../../csrc/src/worker.h"

using namespace rti;

inline const Body& kAverageBody = tables::average_body;

// Walks along +X at `speed`, arms swinging, turning a little.
inline ModelPose walker(double t, float speed = 1.0f, float z = 0) {
    ModelPose p;
    p.root = {static_cast<float>(t) * speed, 0.96f + 0.02f * static_cast<float>(std::sin(9 * t)), z};
    p.local[0] = from_axis_angle({0, 1, 0}, 1.2f + 0.3f * static_cast<float>(std::sin(t)));
    for (int j = 1; j < kJoints; ++j)
        p.local[j] = from_axis_angle(normalize(Vec3{1, 0.3f * static_cast<float>(j % 3), 0.2f}),
                                     0.4f * static_cast<float>(std::sin(5 * t + j)));
    return p;
}

inline float farthest_turn(const ModelPose& a, const ModelPose& b) {
    float worst = 0;
    for (int j = 0; j < kJoints; ++j) worst = std::max(worst, angle_between(a.local[j], b.local[j]));
    return worst;
}

// How many packs the model's own joints fill.
constexpr int kPacks = (kJoints + kPack - 1) / kPack;

// The same as it is shown on the model's own skeleton, where lanes are the joints.
inline Lanes shown(const ModelPose& pose) {
    Lanes out;
    out.root = pose.root;
    for (int j = 0; j < kJoints; ++j) out.set(j, pose.local[j]);
    return out;
}

inline float farthest_turn(const Lanes& a, const Lanes& b) {
    float worst = 0;
    for (int j = 0; j < kJoints; ++j) worst = std::max(worst, angle_between(a.get(j), b.get(j)));
    return worst;
}

// A pose in the caller's buffers, of the model's own skeleton.
struct Buffers {
    float rotations[kJoints * 4];
    rti_pose pose = RTI_POSE_INIT;

    Buffers() {
        pose.joint_count = kJoints;
        pose.rotations = rotations;
        set(walker(0));
    }
    Buffers(const Buffers&) = delete;

    void set(const ModelPose& p) {
        pose.root[0] = p.root.x, pose.root[1] = p.root.y, pose.root[2] = p.root.z;
        for (int j = 0; j < kJoints; ++j)
            for (int k = 0; k < 4; ++k)
                rotations[4 * j + k] = k == 0 ? p.local[j].w : k == 1 ? p.local[j].x : k == 2 ? p.local[j].y : p.local[j].z;
    }

    ModelPose get() const {
        ModelPose p;
        p.root = {pose.root[0], pose.root[1], pose.root[2]};
        for (int j = 0; j < kJoints; ++j)
            p.local[j] = {rotations[4 * j], rotations[4 * j + 1], rotations[4 * j + 2], rotations[4 * j + 3]};
        return p;
    }
};

// Follows the actor a metre beside, `horizon` frames ahead; its faults are switched on from outside.
class FakePlanner : public Planner {
public:
    struct Faults {
        std::atomic<int> delay_ms{5};
        std::atomic<bool> fails{false}, nan{false}, broken_load{false};
        std::atomic<float> aside{1};
        std::atomic<int> hops{0}, together{0}, inside{0}, opened{0}, closed{0};
    };

    explicit FakePlanner(std::shared_ptr<Faults> faults) : faults_(std::move(faults)) {}

    std::int32_t load(std::string& why) noexcept override {
        if (!faults_->broken_load) return RTI_OK;
        why = "load: expected a planner, got a broken one";
        return RTI_E_PYTHON;
    }
    std::int32_t open(std::uint64_t, const Settings& settings, std::string&) noexcept override {
        ++faults_->opened;
        return settings.hop ? settings.hop : 4;
    }
    void close(std::uint64_t) noexcept override { ++faults_->closed; }
    void hop(Hop* const* hops, std::size_t count) noexcept override {
        ++faults_->inside;
        std::this_thread::sleep_for(std::chrono::milliseconds(faults_->delay_ms));
        ++faults_->hops;
        faults_->together = std::max(faults_->together.load(), static_cast<int>(count));
        for (std::size_t i = 0; i < count; ++i) {
            Hop& hop = *hops[i];
            hop.error = "planner: failed on purpose";
            hop.planned = faults_->fails ? 0 : 16;
            const ModelPose& last = hop.actor[hop.frames - 1];
            const Vec3 step = hop.frames > 1 ? last.root - hop.actor[hop.frames - 2].root : Vec3{};
            for (int k = 0; k < hop.planned; ++k) {
                hop.plan[k] = last;
                hop.plan[k].root = last.root + step * static_cast<float>(k + 1) + Vec3{0, 0, faults_->aside};
                if (faults_->nan) hop.plan[k].local[7].x = std::numeric_limits<float>::quiet_NaN();
            }
        }
        --faults_->inside;
    }
    std::int32_t save_prompts(const std::vector<std::string>& texts, const std::string&, std::string&) noexcept override {
        return texts.empty() ? RTI_E_ARGUMENT : RTI_OK;
    }

private:
    std::shared_ptr<Faults> faults_;
};

// A session of the model's own skeleton, and a worker with the fake planner.
struct Scene {
    std::shared_ptr<FakePlanner::Faults> faults = std::make_shared<FakePlanner::Faults>();
    std::unique_ptr<Worker> worker;
    double time = 10;
    std::atomic<int> logged{0};

    explicit Scene(bool broken_load = false) {
        faults->broken_load = broken_load;
        worker = std::make_unique<Worker>(std::make_unique<FakePlanner>(faults), [this](std::int32_t, const std::string&) { ++logged; });
    }

    static Person person(const char* axes = "rtinteract") {
        const Basis basis = Basis::preset(axes);
        const PresetSkeleton preset("smpl22", basis);
        return {std::make_unique<Retarget>(preset.desc(), basis), {}};
    }

    std::shared_ptr<Session> session(SessionConfig config = {}) {
        static std::atomic<std::uint64_t> next{1};
        auto made = std::make_shared<Session>(next++, person(), person(), std::move(config));
        worker->add(made);
        return made;
    }
};

inline rti_stats stats_of(const Session& session) {
    rti_stats stats = RTI_STATS_INIT;
    session.stats(stats);
    return stats;
}

// What came out of a session, tick after tick, and whether it could always be shown.
struct Viewer {
    Buffers out;
    rti_pull_info info = RTI_PULL_INFO_INIT;
    bool always_sound = true;
    float fastest = 0;  // m/s of the root between ticks
    int ticks = 0, states[5] = {0, 0, 0, 0, 0};
    std::uint64_t plans = 0;

    rti_status pull(Session& session, double time) {
        const ModelPose before = out.get();
        const bool had_plan = info.plan != 0;
        const rti_status status = session.pull(time, out.pose, &info);
        const ModelPose now = out.get();
        always_sound = always_sound && sound(now);
        if (had_plan && ticks > 0 && time > last_) fastest = std::max(fastest, length(now.root - before.root) / static_cast<float>(time - last_));
        last_ = time;
        ++ticks;
        ++states[info.state];
        plans = info.plan;
        return status;
    }

private:
    double last_ = 0;
};

// The engine's loop: ticks of `rate_hz` for `seconds`, at the wall clock's pace divided by `haste`.
inline void play(Scene& scene, Session& session, Viewer& viewer, double seconds, double rate_hz, double haste = 1,
                 const std::function<void(Buffers&, int)>& spoil = {}) {
    Buffers in;
    const auto ticks = static_cast<int>(seconds * rate_hz);
    auto next = std::chrono::steady_clock::now();
    for (int i = 0; i < ticks; ++i) {
        scene.time += 1 / rate_hz;
        in.set(walker(scene.time));
        if (spoil) spoil(in, i);
        session.push(RTI_ACTOR, scene.time, in.pose);
        viewer.pull(session, scene.time);
        next += std::chrono::microseconds(static_cast<long>(1e6 / rate_hz / haste));
        std::this_thread::sleep_until(next);
    }
}
