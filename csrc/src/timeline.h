// What is shown at an engine time: the newest plan, blended in, and what to do while plans are late. The pull thread's own state.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <vector>

#include "inertia.h"
#include "lanes.h"
#include "planner.h"
#include "retarget.h"

namespace rti {

// The reactor's poses at 30 Hz from engine time `start_s` on, as they are shown.
struct Plan {
    std::uint64_t epoch = 0, number = 0;
    double start_s = 0;
    int frames = 0;
    Lanes pose[kMaxHorizon];
    // How the last frames go on: m/s and rad/s, per joint in its own frame.
    Vec3 root_velocity;
    Turns turn_velocity[kMaxPacks];

    // Lay the frames on one half of the sphere and reckon the velocities. On the worker, because it costs.
    void finish(int packs) noexcept;
};

struct LatePolicy {
    double hop_s = 4 / kFps;   // a plan is due each
    float blend_s = 0.25f, settle_s = 0.4f, idle_after_s = 2.0f;
    std::vector<ModelPose> idle;
};

enum class State : std::int32_t { waiting, live, hold, settle, idle };

class Timeline {
public:
    // `map` must outlive it.
    Timeline(const LatePolicy& policy, const Retarget& map);

    // Forget the plan and where things stood.
    void reset() noexcept;

    // Where the reactor stands before the first plan.
    void place(const ModelPose& pose) noexcept;

    // A plan to show from the next call of show() on; it must outlive the next call of accept() or reset().
    void accept(const Plan& plan) noexcept;

    // Begin to fetch what the next show() is likely to touch. Any thread.
    void prepare() const noexcept;

    // The pose at engine time `time_s`, sound, until the next call; any finite time, in any order.
    const Lanes& show(double time_s) noexcept;
    // The skeleton that is shown.
    const Rig& rig() const noexcept { return rig_; }
    State state() const noexcept { return state_; }

    const Plan* plan() const noexcept { return plan_; }
    std::uint64_t late() const noexcept { return late_; }
    std::uint64_t fallbacks() const noexcept { return fallbacks_; }

private:
    // Pulls further apart than this did not see what lay between them.
    static constexpr double kBlink_s = 0.25;

    State source(double time_s, Lanes& out) const noexcept;
    float frame(double time_s, int& first) const noexcept;
    void settle(double past_s, Lanes& out) const noexcept;
    void idle(double since_s, Lanes& out) const noexcept;
    double end() const noexcept { return start_s_ + (frames_ - 1) / kFps; }
    double idle_since() const noexcept { return plan_ ? end() + idle_after_s_ : 0; }
    int lap(double time_s) const noexcept;
    void change(bool blinked, bool anew, const Lanes& shown, const Lanes& shown_before, Lanes& out) noexcept;
    void count(State state) noexcept;
    void look_ahead() noexcept;

    // What every tick reads and writes stands together; of the plan itself it reads two frames: where the next tick is likely to
    // look, and to write.
    std::atomic<const Lanes*> ahead_{nullptr}, room_{nullptr};
    const Plan* plan_ = nullptr;
    double start_s_ = 0;
    int frames_ = 0;
    const int packs_;
    bool placed_ = false, shown_once_ = false, switched_ = false;
    State state_ = State::waiting;
    int lap_ = 0, newest_ = 0;
    float blend_s_, settle_s_;
    double hop_s_, idle_after_s_;
    double time_ = 0;
    float dt_ = 0;
    std::uint64_t late_ = 0, fallbacks_ = 0;
    Inertia inertia_;
    const Rig rig_;
    // What was shown at the last two calls, before any pass that touches contacts, and room for the next.
    Lanes shown_[3];
    // What only a change reads.
    struct Rare {
        Lanes standing, stand, target, target_before;  // stand: without a plan; also where the idle clip is laid
        std::vector<Lanes> idle;
    };
    const Retarget& map_;
    const std::unique_ptr<Rare> rare_;
};

}  // namespace rti
