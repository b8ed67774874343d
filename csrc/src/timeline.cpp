#include "timeline.h"

#include <algorithm>
#include <cmath>

#include "machine.h"

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

// Neighbouring frames on the same half of the sphere, so that straight interpolation needs no choice.
void align(const Lanes& to, Lanes& lanes, int packs) noexcept {
    for (int n = 0; n < packs * kPack; ++n)
        if (const Quat q = lanes.get(n); dot(to.get(n), q) < 0) lanes.set(n, -q);
}

}  // namespace

void Plan::finish(int packs) noexcept {
    for (int i = 1; i < frames; ++i) align(pose[i - 1], pose[i], packs);
    const Lanes& last = pose[frames - 1];
    const int back = std::min(kLast, frames) - 1;
    const Lanes& before = pose[frames - 1 - back];
    const float rate = static_cast<float>(kFps) / static_cast<float>(std::max(back, 1));
    root_velocity = limited((last.root - before.root) * rate, kSettleSpeed);
    for (int i = 0; i < packs; ++i) {
        Turns way = way_between(before.pack[i], last.pack[i]);
        for (int k = 0; k < kPack; ++k) way.x[k] *= rate, way.y[k] *= rate, way.z[k] *= rate;
        turn_velocity[i] = limited(way, kSettleTurn);
    }
}

Timeline::Timeline(const LatePolicy& policy, const Retarget& map)
    : packs_(map.rig().packs), blend_s_(policy.blend_s), settle_s_(std::max(policy.settle_s, 1e-3f) / 3),
      hop_s_(policy.hop_s), idle_after_s_(static_cast<double>(policy.idle_after_s)), rig_(map.rig()), map_(map),
      rare_(std::make_unique<Rare>()) {
    ahead_.store(&shown_[0], std::memory_order_relaxed);
    room_.store(&shown_[1], std::memory_order_relaxed);
    map_.to_lanes(standing(), rare_->standing);
    rare_->stand = rare_->standing;
    for (const ModelPose& pose : policy.idle) {
        rare_->idle.emplace_back();
        map_.to_lanes(pose, rare_->idle.back());
        if (rare_->idle.size() > 1) align(rare_->idle[rare_->idle.size() - 2], rare_->idle.back(), packs_);
    }
}

void Timeline::reset() noexcept {
    plan_ = nullptr;
    rare_->stand = rare_->standing;
    placed_ = shown_once_ = switched_ = false;
    state_ = State::waiting;
    inertia_.stop();
}

void Timeline::place(const ModelPose& pose) noexcept {
    map_.to_lanes(pose, rare_->stand);
    placed_ = true;
}

RTI_SEAM void Timeline::accept(const Plan& plan) noexcept {
    // Someone who was never placed appears where the first plan has them: there is nothing true to blend from.
    if (!plan_ && !placed_) {
        shown_once_ = false;
        inertia_.stop();
    }
    plan_ = &plan;
    start_s_ = plan.start_s;
    frames_ = plan.frames;
    switched_ = true;
}

void Timeline::settle(double past_s, Lanes& out) const noexcept {
    // The velocity dies away as e^-t; what is left of the way is its integral.
    const float way = settle_s_ * (1 - std::exp(-static_cast<float>(past_s) / settle_s_));
    const Lanes& last = plan_->pose[frames_ - 1];
    out = last;
    out.root = last.root + plan_->root_velocity * way;
    for (int i = 0; i < packs_; ++i) turn(out.pack[i], plan_->turn_velocity[i], way, plan_->turn_velocity[i], 0);
}

int Timeline::lap(double time_s) const noexcept {
    const double length = static_cast<double>(rare_->idle.size()) / kFps;
    return static_cast<int>(std::fmod(std::max(0.0, (time_s - idle_since()) / length), 1e6));
}

void Timeline::idle(double since_s, Lanes& out) const noexcept {
    const auto frames = rare_->idle.size();
    const double at = std::fmod(std::max(0.0, since_s) * kFps, static_cast<double>(frames));
    const auto i = std::min(static_cast<std::size_t>(at), frames - 1);
    const auto t = static_cast<float>(at - static_cast<double>(i));
    const Lanes& first = rare_->idle[0];
    mix(rare_->idle[i], rare_->idle[std::min(i + 1, frames - 1)], t, packs_, out);
    // The clip plays where the reactor stands, turned as it stands; its heights are its own.
    const int pelvis = rig_.pelvis;
    const Quat turn = mul(rig_.heading(rare_->stand.get(pelvis)), conj(rig_.heading(first.get(pelvis))));
    const Vec3 height = out.root - rig_.flat(out.root);
    out.root = rig_.flat(rare_->stand.root) + rotate(turn, rig_.flat(out.root - first.root)) + height;
    out.set(pelvis, rig_.turned_pelvis(out.get(pelvis), turn));
}

RTI_TICK State Timeline::source(double time_s, Lanes& out) const noexcept {
    if (!plan_) {
        if (rare_->idle.empty()) out = rare_->stand;
        else idle(time_s, out);
        return State::waiting;
    }
    const double past = time_s - end();
    if (past > idle_after_s_ && !rare_->idle.empty()) {
        idle(time_s - idle_since(), out);
        return State::idle;
    }
    if (past > 0) {
        settle(past, out);
        return State::settle;
    }
    int i = 0;
    const float t = frame(time_s, i);
    mix(plan_->pose[i], plan_->pose[std::min(i + 1, frames_ - 1)], t, packs_, out);
    // Two hops: the plan's own, and the one in which the next is made.
    return time_s - start_s_ > 2 * hop_s_ ? State::hold : State::live;
}

// The plan's frame before a time, and how far past it that is.
RTI_TICK float Timeline::frame(double time_s, int& first) const noexcept {
    // A quick planner's plan begins a little after now: its first two frames also tell what came just before.
    const double at = std::max(-kLead, (time_s - start_s_) * kFps);
    first = static_cast<int>(std::clamp(at, 0.0, static_cast<double>(frames_ - 1)));
    return static_cast<float>(at - first);
}

// Between two ticks the engine has filled the caches with its own: what the tick will touch is asked for at once, not one by one.
RTI_TICK void Timeline::prepare() const noexcept {
    const std::size_t bytes = offsetof(Lanes, pack) + static_cast<std::size_t>(packs_) * sizeof(Pack);
    const Lanes* ahead = ahead_.load(std::memory_order_relaxed);
    fetch_to(this, reinterpret_cast<const char*>(&inertia_) + Inertia::touched(packs_));
    fetch(&rig_, sizeof rig_ / 2);
    fetch(ahead, bytes);
    fetch(ahead + 1, bytes);
    fetch(room_.load(std::memory_order_relaxed), bytes);
}

// Another motion begins to be shown. The blend begins at the last tick, so that this one already moves.
RTI_SEAM void Timeline::change(bool blinked, bool anew, const Lanes& shown, const Lanes& shown_before, Lanes& out) noexcept {
    if (anew) {
        // What comes now was not going on at the last tick, so it has no velocity of its own there.
        inertia_.begin(shown, blinked ? shown : shown_before, out, out, dt_, blend_s_, packs_);
        return;
    }
    source(time_, rare_->target);
    source(time_ - static_cast<double>(dt_), rare_->target_before);
    inertia_.begin(shown, shown_before, rare_->target, rare_->target_before, dt_, blend_s_, packs_);
}

void Timeline::count(State state) noexcept {
    if (state == State::hold && state_ != State::hold) ++late_;
    if (state == State::settle && state_ != State::settle && state_ != State::idle) ++fallbacks_;
    state_ = state;
}

RTI_INLINE void Timeline::look_ahead() noexcept {
    room_.store(&shown_[(newest_ + 1) % 3], std::memory_order_relaxed);
    if (!plan_) return;
    int i = 0;
    frame(time_ + static_cast<double>(dt_), i);
    ahead_.store(&plan_->pose[i], std::memory_order_relaxed);
}

RTI_TICK const Lanes& Timeline::show(double time_s) noexcept {
    if (!std::isfinite(time_s)) time_s = time_;
    const Lanes &shown = shown_[newest_], &shown_before = shown_[(newest_ + 2) % 3];
    Lanes& out = shown_[(newest_ + 1) % 3];
    const double step = shown_once_ ? time_s - time_ : 0;
    const bool blinked = step < 0 || step > kBlink_s;
    const auto dt = static_cast<float>(blinked ? 1 / kFps : step);
    State state = source(time_s, out);
    const bool idles = (state == State::idle || state == State::waiting) && !rare_->idle.empty();
    const bool crossed = (state == State::idle) != (state_ == State::idle);
    // The idle clip is laid where the reactor came to stand.
    if (crossed && state == State::idle) {
        rare_->stand = shown;
        state = source(time_s, out);
    }
    const int lap_now = idles ? lap(time_s) : 0;
    const bool anew = blinked || crossed || (idles && lap_now != lap_);
    if (shown_once_ && (anew || switched_)) change(blinked, anew, shown, shown_before, out);
    inertia_.apply(out, dt, packs_);
    if (!sound(out, packs_)) {
        inertia_.stop();
        out = shown;
    }
    lap_ = lap_now;
    switched_ = false;
    count(state);
    newest_ = (newest_ + 1) % 3;
    dt_ = blinked ? 0 : dt;
    time_ = time_s;
    shown_once_ = true;
    look_ahead();
    return out;
}

}  // namespace rti
