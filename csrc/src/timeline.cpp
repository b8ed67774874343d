#include "timeline.h"

#include <algorithm>
#include <cmath>

namespace rti {
namespace {

// Frames before its first that a plan is carried back.
constexpr double kLead = 2;
// The velocity a plan ends with is the mean over so many frames, and no faster: carried on, a quick twitch would twist the body.
constexpr int kLast = 4;
constexpr float kSettleSpeed = 2, kSettleTurn = 4;

// Upright at the origin, arms down.
ModelPose standing() noexcept {
    ModelPose pose;
    pose.root = {0, 0.94f, 0};
    pose.local[kLeftShoulder] = from_axis_angle({0, 0, 1}, -1.3f);
    pose.local[kRightShoulder] = from_axis_angle({0, 0, 1}, 1.3f);
    return pose;
}

}  // namespace

void Plan::finish() noexcept {
    const ModelPose& last = pose[frames - 1];
    const int back = std::min(kLast, frames) - 1;
    const ModelPose& before = pose[frames - 1 - back];
    const float rate = static_cast<float>(kFps) / static_cast<float>(std::max(back, 1));
    root_velocity = limited((last.root - before.root) * rate, kSettleSpeed);
    for (int j = 0; j < kJoints; ++j)
        turn_velocity[j] = limited(log(mul(conj(before.local[j]), last.local[j])) * rate, kSettleTurn);
}

Timeline::Timeline(LatePolicy policy) : policy_(std::move(policy)), stand_(standing()) {}

void Timeline::reset() noexcept {
    plan_ = nullptr;
    stand_ = standing();
    placed_ = shown_once_ = switched_ = false;
    state_ = State::waiting;
    inertia_.stop();
}

void Timeline::place(const ModelPose& pose) noexcept {
    stand_ = pose;
    placed_ = true;
}

void Timeline::accept(const Plan& plan) noexcept {
    // Someone who was never placed appears where the first plan has them: there is nothing true to blend from.
    if (!plan_ && !placed_) {
        shown_once_ = false;
        inertia_.stop();
    }
    plan_ = &plan;
    switched_ = true;
}

void Timeline::settle(double past_s, ModelPose& out) const noexcept {
    // The velocity dies away as e^-t; what is left of the way is its integral.
    const float tau = std::max(policy_.settle_s, 1e-3f) / 3;
    const float way = tau * (1 - std::exp(-static_cast<float>(past_s) / tau));
    out = plan_->pose[plan_->frames - 1];
    out.root = out.root + plan_->root_velocity * way;
    for (int j = 0; j < kJoints; ++j) out.local[j] = mul(out.local[j], exp(plan_->turn_velocity[j] * way));
}

int Timeline::lap(double time_s) const noexcept {
    const double length = static_cast<double>(policy_.idle.size()) / kFps;
    return static_cast<int>(std::fmod(std::max(0.0, (time_s - idle_since()) / length), 1e6));
}

void Timeline::idle(double since_s, ModelPose& out) const noexcept {
    const auto frames = policy_.idle.size();
    const double at = std::fmod(std::max(0.0, since_s) * kFps, static_cast<double>(frames));
    const auto i = std::min(static_cast<std::size_t>(at), frames - 1);
    const auto t = static_cast<float>(at - static_cast<double>(i));
    const ModelPose &a = policy_.idle[i], &b = policy_.idle[std::min(i + 1, frames - 1)], &first = policy_.idle[0];
    // The clip plays where the reactor stands, turned as it stands.
    const Quat turn = mul(yaw_of(stand_.local[0]), conj(yaw_of(first.local[0])));
    const Vec3 root = lerp(a.root, b.root, t);
    const Vec3 way = rotate(turn, {root.x - first.root.x, 0, root.z - first.root.z});
    out.root = {stand_.root.x + way.x, root.y, stand_.root.z + way.z};
    for (int j = 0; j < kJoints; ++j) out.local[j] = nlerp(a.local[j], b.local[j], t);
    out.local[0] = mul(turn, out.local[0]);
}

State Timeline::source(double time_s, ModelPose& out) const noexcept {
    if (!plan_) {
        if (policy_.idle.empty()) out = stand_;
        else idle(time_s, out);
        return State::waiting;
    }
    const double past = time_s - end();
    if (past > policy_.idle_after_s && !policy_.idle.empty()) {
        idle(time_s - idle_since(), out);
        return State::idle;
    }
    if (past > 0) {
        settle(past, out);
        return State::settle;
    }
    // A quick planner's plan begins a little after now: its first two frames also tell what came just before.
    const double at = std::max(-kLead, (time_s - plan_->start_s) * kFps);
    const int i = std::clamp(static_cast<int>(at), 0, plan_->frames - 1), next = std::min(i + 1, plan_->frames - 1);
    const auto t = static_cast<float>(at - i);
    const ModelPose &a = plan_->pose[i], &b = plan_->pose[next];
    out.root = lerp(a.root, b.root, t);
    for (int j = 0; j < kJoints; ++j) out.local[j] = nlerp(a.local[j], b.local[j], t);
    // Two hops: the plan's own, and the one in which the next is made.
    return time_s - plan_->start_s > 2 * policy_.hop_s ? State::hold : State::live;
}

void Timeline::seam() noexcept {
    ModelPose target, target_before;
    source(time_, target);
    source(time_ - static_cast<double>(dt_), target_before);
    inertia_.begin(shown_, shown_before_, target, target_before, dt_, policy_.blend_s);
}

void Timeline::count(State state) noexcept {
    if (state == State::hold && state_ != State::hold) ++late_;
    if (state == State::settle && state_ != State::settle && state_ != State::idle) ++fallbacks_;
    state_ = state;
}

State Timeline::show(double time_s, ModelPose& out) noexcept {
    if (!std::isfinite(time_s)) time_s = time_;
    const double step = shown_once_ ? time_s - time_ : 0;
    const bool blinked = step < 0 || step > kBlink_s;
    const auto dt = static_cast<float>(blinked ? 1 / kFps : step);
    const State state = source(time_s, out);
    const bool idles = !policy_.idle.empty() && (state == State::idle || state == State::waiting);
    const bool crossed = (state == State::idle) != (state_ == State::idle);
    // The idle clip is laid where the reactor came to stand.
    if (crossed && state == State::idle) stand_ = shown_;
    const int lap_now = idles ? lap(time_s) : 0;
    if (shown_once_ && (blinked || crossed || (idles && lap_now != lap_))) {
        // What comes now was not going on at the last tick, so it has no velocity of its own there.
        source(time_s, out);
        inertia_.begin(shown_, blinked ? shown_ : shown_before_, out, out, dt_, policy_.blend_s);
    } else if (shown_once_ && switched_) {
        // The blend begins at the last tick, so that this one already moves.
        seam();
    }
    inertia_.apply(out, dt);
    lap_ = lap_now;
    switched_ = false;
    count(state);
    shown_before_ = shown_;
    shown_ = out;
    dt_ = blinked ? 0 : dt;
    time_ = time_s;
    shown_once_ = true;
    return state;
}

}  // namespace rti
