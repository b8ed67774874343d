#include "session.h"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace rti {
namespace {

// At 240 Hz two seconds of poses; more than a worker that is not hung ever leaves.
constexpr std::size_t kRing = 512;
// Lengths of a rotation that are taken (and mended), squared.
constexpr float kShort = 0.98f, kLong = 1.02f;

bool unit(const float* q, int count) noexcept {
    bool ok = true;
    // NaN fails both comparisons, infinity the second.
    for (int j = 0; j < count; ++j, q += 4) {
        const float n2 = q[0] * q[0] + q[1] * q[1] + q[2] * q[2] + q[3] * q[3];
        ok &= n2 > kShort && n2 < kLong;
    }
    return ok;
}

}  // namespace

Session::Session(std::uint64_t id, Person actor, Person reactor, SessionConfig config)
    : id_(id), actor_(std::move(actor)), reactor_(std::move(reactor)), config_(std::move(config)),
      pushed_poses_(3 + 4 * static_cast<std::size_t>(actor_.map->joints()), kRing),
      placed_poses_(3 + 4 * static_cast<std::size_t>(reactor_.map->joints()), 4), timeline_(config_.policy) {
    seen_.values.resize(std::max(pushed_poses_.floats(), placed_poses_.floats()));
    popped_.values.resize(seen_.values.size());
    hop_.session = id_;
}

rti_status Session::refuse(Counter& counter, const char* text, rti_status status) noexcept {
    counter.add();
    push_fault_.store(text, std::memory_order_release);
    return status;
}

rti_status Session::push(std::int32_t person, double time_s, const rti_pose& pose) noexcept {
    const std::int64_t began = now_ns();
    if (pose.joint_count != this->person(person).map->joints())
        return refuse(rejected_poses_, "push_pose: pose->joint_count: expected the session's joint count (rti_session_joint_count), "
                      "got another; push poses of the skeleton the session was made with", RTI_E_POSE);
    if (!finite(Vec3{pose.root[0], pose.root[1], pose.root[2]}) || !unit(pose.rotations, pose.joint_count))
        return refuse(rejected_poses_, "push_pose: pose: expected a finite root and unit quaternions w, x, y, z, got NaN, infinity or "
                      "another length; normalise rotations before the push", RTI_E_POSE);
    const std::uint64_t epoch = epoch_.load(std::memory_order_acquire);
    if (epoch != push_epoch_) push_any_[0] = push_any_[1] = false;
    push_epoch_ = epoch;
    const double last = push_time_[person];
    // A long way back is a clock that was set anew; a short one is a tick out of order.
    if (!std::isfinite(time_s) || (push_any_[person] && time_s <= last && time_s >= last - Resampler::kGap_s))
        return refuse(rejected_times_, "push_pose: time_s: expected a finite time later than the last one, got an earlier or the same; "
                      "push each tick once, in order", RTI_E_TIME);
    push_any_[person] = true;
    push_time_[person] = time_s;
    (person == RTI_ACTOR ? pushed_poses_ : placed_poses_).push(time_s, epoch, began, pose.root, pose.rotations);
    pushed_.add();
    push_ns_.add(now_ns() - began);
    return RTI_OK;
}

bool Session::to_model(const Retarget& map, Sample& sample, ModelPose& out) noexcept {
    float* q = sample.values.data() + 3;
    for (int j = 0; j < map.joints(); ++j, q += 4) {
        const float s = 1 / std::sqrt(q[0] * q[0] + q[1] * q[1] + q[2] * q[2] + q[3] * q[3]);
        for (int k = 0; k < 4; ++k) q[k] *= s;
    }
    map.to_model(sample.values.data(), sample.values.data() + 3, out);
    return sound(out);
}

void Session::refresh() noexcept {
    const Plan* plan = plans_.take();
    const std::uint64_t epoch = epoch_.load(std::memory_order_acquire);
    if (epoch != pull_epoch_) {
        pull_epoch_ = epoch;
        timeline_.reset();
        feet_.reset();
        push_out_.reset();
        has_root_ = false;
    }
    if (plan && plan->epoch == epoch) timeline_.accept(*plan);
    // The slot that the timeline looked into is the writer's again.
    else if (plan) timeline_.reset();
    const std::uint64_t placed = placed_poses_.written();
    ModelPose pose;
    if (!timeline_.plan() && placed != placed_seen_ && placed_poses_.newest(seen_)) {
        placed_seen_ = placed;
        if (seen_.epoch == epoch && to_model(*reactor_.map, seen_, pose)) timeline_.place(pose);
    }
}

bool Session::see_actor(ModelPose& out) noexcept {
    return (config_.flags & (RTI_FLAG_PUSH_OUT | RTI_FLAG_HANDS)) && pushed_poses_.newest(seen_) && seen_.epoch == pull_epoch_ &&
           to_model(*actor_.map, seen_, out);
}

void Session::pass(ModelPose& pose, double time_s, const ModelPose* actor, rti_pull_info& info) noexcept {
    if (!(config_.flags & (RTI_FLAG_FOOT_LOCK | RTI_FLAG_PUSH_OUT))) return;
    const auto dt = static_cast<float>(std::clamp(time_s - pull_time_, 0.0, 0.25));
    WorldPose world, other;
    forward(pose, reactor_.map->body(), world);
    if ((config_.flags & RTI_FLAG_PUSH_OUT) && actor) {
        forward(*actor, actor_.map->body(), other);
        info.penetration = push_out_.apply(pose, world, other, dt);
    }
    if (config_.flags & RTI_FLAG_FOOT_LOCK) info.foot_slide = feet_.apply(pose, world, dt);
}

void Session::extract_root(ModelPose& pose, rti_pull_info& info) noexcept {
    const Quat heading = yaw_of(pose.local[0]);
    const Vec3 root = pose.root;
    if (has_root_) {
        const Vec3 way = rotate(conj(heading_), {root.x - root_.x, 0, root.z - root_.z});
        reactor_.map->basis().vector_from_model(way, info.root_delta);
        reactor_.map->basis().rotation_from_model(mul(conj(heading_), heading), info.root_turn);
    }
    has_root_ = true;
    root_ = root;
    heading_ = heading;
    pose.root = {0, root.y, 0};
    pose.local[0] = mul(conj(heading), pose.local[0]);
}

rti_status Session::pull(double time_s, rti_pose& out, rti_pull_info* info) noexcept {
    const std::int64_t began = now_ns();
    rti_pull_info told = RTI_PULL_INFO_INIT;
    refresh();
    if (!std::isfinite(time_s)) time_s = pull_time_;
    ModelPose pose, actor;
    const State state = timeline_.show(time_s, pose);
    const bool seen = see_actor(actor);
    pass(pose, time_s, seen ? &actor : nullptr, told);
    if (sound(pose)) good_ = pose;
    else pose = good_;
    pull_time_ = time_s;
    const Retarget& map = *reactor_.map;
    const bool in_place = (config_.flags & RTI_FLAG_ROOT_MOTION) != 0;
    if (in_place) extract_root(pose, told);
    map.from_model(pose, out.root, out.rotations);
    // Hands are found in the world, which a pose over the origin has left.
    if (seen && !in_place && (config_.flags & RTI_FLAG_HANDS))
        map.reach(pose, actor, *actor_.map, seen_.values.data(), seen_.values.data() + 3, out.root, out.rotations);
    const Plan* plan = timeline_.plan();
    told.state = static_cast<std::int32_t>(state);
    told.plan = plan ? plan->number : 0;
    told.plan_age_s = plan ? time_s - plan->start_s : 0;
    if (info) {
        told.struct_size = info->struct_size;
        std::memcpy(info, &told, std::min<std::size_t>(info->struct_size, sizeof told));
    }
    state_.store(told.state, std::memory_order_relaxed);
    late_.add(timeline_.late() - late_.get());
    fallbacks_.add(timeline_.fallbacks() - fallbacks_.get());
    pulled_.add();
    pull_ns_.add(now_ns() - began);
    return plan ? RTI_OK : RTI_NOT_READY;
}

void Session::set_prompt(std::string text) {
    const std::lock_guard<std::mutex> lock(text_mutex_);
    prompt_ = std::move(text);
    prompt_changed_ = true;
}

void Session::opened(int hop) {
    hop_frames_ = hop;
    window_.resize(static_cast<std::size_t>(hop));
    open_.store(true, std::memory_order_release);
}

bool Session::gather() noexcept {
    const std::uint64_t epoch = epoch_.load(std::memory_order_acquire);
    if (epoch != work_epoch_) {
        work_epoch_ = epoch;
        resampler_.reset();
        hop_.fresh = true;
    }
    ModelPose pose;
    while (pushed_poses_.pop(popped_, lost_so_far_))
        if (popped_.epoch == epoch && to_model(*actor_.map, popped_, pose)) resampler_.add(popped_.time, pose, popped_.pushed_ns);
    const auto frames = static_cast<std::size_t>(hop_frames_);
    std::uint64_t skipped = 0;
    // One hop is due at a time: a planner that is slower than its hops would otherwise answer ever older frames.
    for (; resampler_.ready() >= 2 * frames; skipped += frames) resampler_.skip(frames);
    lost_poses_.add(lost_so_far_ - lost_poses_.get());
    lost_frames_.add(skipped + resampler_.overflowed() - overflowed_);
    overflowed_ = resampler_.overflowed();
    jumps_.add(resampler_.jumps() - jumps_.get());
    if (resampler_.ready() < frames) return false;
    next_s_ = resampler_.take(frames, window_.data(), mark_);
    hop_.actor = window_.data();
    hop_.frames = hop_frames_;
    hop_.placed = nullptr;
    if (placed_poses_.newest(popped_) && popped_.epoch == epoch && to_model(*reactor_.map, popped_, place_)) hop_.placed = &place_;
    const std::lock_guard<std::mutex> lock(text_mutex_);
    if (prompt_changed_) asked_ = prompt_;
    hop_.prompt = prompt_changed_ ? &asked_ : nullptr;
    prompt_changed_ = false;
    hop_.planned = 0;
    return true;
}

bool Session::deliver(std::int64_t ns) {
    bool good = hop_.planned > 0 && hop_.planned <= kMaxHorizon;
    for (int i = 0; good && i < hop_.planned; ++i) good = sound(hop_.plan[i]);
    if (hop_.planned != 0 && !good) hop_.error = "planner: expected sound poses, got NaN, infinity or rotations of another length";
    if (!good) {
        fail(hop_.error);
        return false;
    }
    hop_.fresh = false;
    Plan& plan = plans_.draft();
    plan.epoch = work_epoch_;
    plan.number = ++number_;
    plan.start_s = next_s_;
    plan.pushed_ns = mark_;
    plan.frames = hop_.planned;
    std::copy_n(hop_.plan, hop_.planned, plan.pose);
    for (int i = 0; i < plan.frames; ++i)
        for (Quat& q : plan.pose[i].local) q = normalize(q);
    plan.finish();
    plans_.publish();
    planned_.store(work_epoch_, std::memory_order_release);
    hops_.add();
    hop_ns_.add(ns);
    reaction_ns_.add(now_ns() - mark_);
    return true;
}

void Session::fail(const std::string& text) {
    failed_.add();
    const std::lock_guard<std::mutex> lock(text_mutex_);
    error_ = text;
    push_fault_.store(nullptr, std::memory_order_release);
    // What was asked for has not been heard.
    if (hop_.prompt) prompt_changed_ = true;
}

std::string Session::last_error() const {
    if (const char* fault = push_fault_.load(std::memory_order_acquire)) return fault;
    const std::lock_guard<std::mutex> lock(text_mutex_);
    return error_;
}

void Session::stats(rti_stats& out) const noexcept {
    rti_stats told = RTI_STATS_INIT;
    told.state = state_.load(std::memory_order_relaxed);
    told.pushed = pushed_.get();
    told.pulled = pulled_.get();
    told.rejected_poses = rejected_poses_.get();
    told.rejected_times = rejected_times_.get();
    told.lost_poses = lost_poses_.get();
    told.lost_frames = lost_frames_.get();
    told.time_jumps = jumps_.get();
    told.hops = hops_.get();
    told.failed_hops = failed_.get();
    told.late = late_.get();
    told.fallbacks = fallbacks_.get();
    push_ns_.percentiles(told.push_us);
    pull_ns_.percentiles(told.pull_us);
    hop_ns_.percentiles(told.hop_us);
    reaction_ns_.percentiles(told.reaction_us);
    told.struct_size = out.struct_size;
    std::memcpy(&out, &told, std::min<std::size_t>(out.struct_size, sizeof told));
}

}  // namespace rti
