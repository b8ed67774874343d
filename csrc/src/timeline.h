// What is shown at an engine time: the newest plan, blended in, and what to do while plans are late. The pull thread's own state.
#pragma once

#include <cstdint>
#include <vector>

#include "inertia.h"
#include "planner.h"
#include "pose.h"

namespace rti {

// The reactor's poses at 30 Hz from engine time `start_s` on.
struct Plan {
    std::uint64_t epoch = 0, number = 0;
    double start_s = 0;
    std::int64_t pushed_ns = 0;  // when the pose that completed the hop was pushed
    int frames = 0;
    ModelPose pose[kMaxHorizon];
    // How the last two frames go on: m/s and rad/s, per joint in its own frame.
    Vec3 root_velocity, turn_velocity[kJoints];

    // Reckon the velocities from the frames. On the worker, because it costs.
    void finish() noexcept;
};

struct LatePolicy {
    double hop_s = 4 / kFps;   // a plan is due each
    float blend_s = 0.25f, settle_s = 0.4f, idle_after_s = 2.0f;
    std::vector<ModelPose> idle;
};

enum class State : std::int32_t { waiting, live, hold, settle, idle };

class Timeline {
public:
    explicit Timeline(LatePolicy policy);

    // Forget the plan and where things stood.
    void reset() noexcept;

    // Where the reactor stands before the first plan.
    void place(const ModelPose& pose) noexcept;

    // A plan to show from the next call of show() on; it must outlive the next call of accept() or reset().
    void accept(const Plan& plan) noexcept;

    // The pose at engine time `time_s`; any finite time, in any order.
    State show(double time_s, ModelPose& out) noexcept;

    const Plan* plan() const noexcept { return plan_; }
    std::uint64_t late() const noexcept { return late_; }
    std::uint64_t fallbacks() const noexcept { return fallbacks_; }

private:
    // Pulls further apart than this did not see what lay between them.
    static constexpr double kBlink_s = 0.25;

    State source(double time_s, ModelPose& out) const noexcept;
    void settle(double past_s, ModelPose& out) const noexcept;
    void idle(double since_s, ModelPose& out) const noexcept;
    double end() const noexcept { return plan_->start_s + (plan_->frames - 1) / kFps; }
    double idle_since() const noexcept { return plan_ ? end() + policy_.idle_after_s : 0; }
    int lap(double time_s) const noexcept;
    void seam() noexcept;
    void count(State state) noexcept;

    LatePolicy policy_;
    const Plan* plan_ = nullptr;
    bool placed_ = false, shown_once_ = false, switched_ = false;
    State state_ = State::waiting;
    int lap_ = 0;
    ModelPose stand_;  // what stands without a plan, and where the idle clip is laid
    Inertia inertia_;
    // What was shown at the last two calls, before any pass that touches contacts.
    ModelPose shown_, shown_before_;
    double time_ = 0;
    float dt_ = 0;
    std::uint64_t late_ = 0, fallbacks_ = 0;
};

}  // namespace rti
