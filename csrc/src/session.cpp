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
    int j = 0;
    for (; j + kPack <= count; j += kPack, q += 4 * kPack) {
        float n2[kPack];
        for (int k = 0; k < kPack; ++k)
            n2[k] = q[4 * k] * q[4 * k] + q[4 * k + 1] * q[4 * k + 1] + q[4 * k + 2] * q[4 * k + 2] + q[4 * k + 3] * q[4 * k + 3];
        // NaN fails both comparisons, infinity the second.
        for (int k = 0; k < kPack; ++k) ok &= n2[k] > kShort && n2[k] < kLong;
    }
    for (; j < count; ++j, q += 4) {
        const float n2 = q[0] * q[0] + q[1] * q[1] + q[2] * q[2] + q[3] * q[3];
        ok &= n2 > kShort && n2 < kLong;
    }
    return ok;
}

}  // namespace

Session::Session(std::uint64_t id, Person actor, Person reactor, SessionConfig config)
    : id_(id), actor_(std::move(actor)), reactor_(std::move(reactor)), config_(std::move(config)),
      pushed_poses_(static_cast<std::size_t>(actor_.map->joints()), kRing),
      placed_poses_(static_cast<std::size_t>(reactor_.map->joints()), 4),
      joints_{actor_.map->joints(), reactor_.map->joints()}, flags_(config_.flags), strength_(config_.strength), timeline_(config_.policy, *reactor_.map) {
    seen_.values.resize(3 + 4 * static_cast<std::size_t>(std::max(joints_[RTI_ACTOR], joints_[RTI_REACTOR])));
    popped_.values.resize(seen_.values.size());
    hop_.session = id_;
}

rti_status Session::refuse(Counter& counter, const char* text, rti_status status) noexcept {
    counter.add();
    push_fault_.store(text, std::memory_order_release);
    return status;
}

RTI_TICK rti_status Session::push(std::int32_t person, double time_s, const rti_pose& pose) noexcept {
    const std::int64_t began = now_ticks();
    PoseRing& ring = person == RTI_ACTOR ? pushed_poses_ : placed_poses_;
    ring.prepare();
    // A pull is likely to come next.
    fetch_code();
    if (pose.joint_count != joints_[person])
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
    ring.push(time_s, epoch, began, pose.root, pose.rotations);
    pushed_.add();
    push_ticks_.add(now_ticks() - began);
    return RTI_OK;
}

// Rotations of unit length, from near it as push() lets them through.
void Session::mend(Sample& sample, int joints) noexcept {
    float* q = sample.values.data() + 3;
    for (int j = 0; j < joints; ++j, q += 4) {
        const float s = 1 / std::sqrt(q[0] * q[0] + q[1] * q[1] + q[2] * q[2] + q[3] * q[3]);
        for (int k = 0; k < 4; ++k) q[k] *= s;
    }
}

bool Session::to_model(const Retarget& map, Sample& sample, ModelPose& out) noexcept {
    mend(sample, map.joints());
    map.to_model(sample.values.data(), sample.values.data() + 3, out);
    return sound(out);
}

RTI_TICK void Session::refresh() noexcept {
    const Plan* plan = plans_.take();
    const std::uint64_t epoch = epoch_.load(std::memory_order_acquire);
    const std::uint32_t flags = flags_.load(std::memory_order_relaxed), on = flags & ~pull_flags_;
    pull_flags_ = flags;
    // What a pass remembers of the time before it was switched off is no longer true.
    if (on & RTI_FLAG_FOOT_LOCK) feet_.reset();
    if (on & RTI_FLAG_PUSH_OUT) push_out_.reset();
    if (on & RTI_FLAG_ROOT_MOTION) has_root_ = false;
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

bool Session::see_actor() noexcept {
    if (!pushed_poses_.newest(seen_) || seen_.epoch != pull_epoch_) return false;
    mend(seen_, joints_[RTI_ACTOR]);
    return true;
}

void Session::push_out(const Lanes& lanes, float dt, Vec3& root, float* wxyz, rti_pull_info& info) noexcept {
    const Rig &own = timeline_.rig(), &other = actor_.map->rig();
    const Basis &here = reactor_.map->basis(), &there = actor_.map->basis();
    for (int n = 0; n < other.nodes; ++n) {
        const float* q = seen_.values.data() + 3 + 4 * other.joint_of[n];
        actor_lanes_.set(n, {q[0], q[1], q[2], q[3]});
    }
    const float* at = seen_.values.data();
    actor_lanes_.root = Vec3{at[0], at[1], at[2]} * there.metres_per_unit;
    other.stand(actor_lanes_, other.all, other.nodes, actor_placed_);
    Obstacle obstacle = obstacle_of(other, actor_placed_);
    for (Vec3* p : {&obstacle.pelvis, &obstacle.neck, &obstacle.head, &obstacle.crown}) *p = here.out(there.in(*p));
    own.stand(lanes, own.all, own.nodes, placed_);
    Vec3 way;
    info.penetration = push_out_.apply(own, placed_, obstacle, dt, strength_.push_out, way, wxyz);
    root = root + way;
}

RTI_TICK void Session::pass(const Lanes& lanes, double time_s, Vec3& root, float* wxyz, rti_pull_info& info) noexcept {
    const Rig& rig = timeline_.rig();
    const auto dt = static_cast<float>(std::clamp(time_s - pull_time_, 0.0, 0.25));
    if (pull_flags_ & RTI_FLAG_PUSH_OUT && see_actor()) push_out(lanes, dt, root, wxyz, info);
    else if (pull_flags_ & RTI_FLAG_FOOT_LOCK) rig.stand(lanes, rig.feet, rig.feet_nodes, placed_);
    if (pull_flags_ & RTI_FLAG_FOOT_LOCK) info.foot_slide = feet_.apply(rig, placed_, dt, strength_.foot_lock, wxyz);
}

// Hands are found in the world, on the average body.
void Session::hands(const float* root, float* wxyz) noexcept {
    ModelPose own, actor;
    reactor_.map->to_model(root, wxyz, own);
    if (see_actor() && to_model(*actor_.map, seen_, actor) && sound(own))
        reactor_.map->reach(own, actor, *actor_.map, seen_.values.data(), seen_.values.data() + 3, root, strength_.hands, wxyz);
}

// The engine is told the root's way and turn, and shown the pose over the origin, facing ahead.
void Session::extract_root(const Lanes& lanes, Vec3& root, float* wxyz, rti_pull_info& info) noexcept {
    const Rig& rig = timeline_.rig();
    const Quat pelvis = lanes.get(rig.pelvis), heading = rig.heading(pelvis);
    if (has_root_) {
        rig.write_root(rotate(conj(heading_), rig.flat(root - root_)), info.root_delta);
        const Quat turn = mul(conj(heading_), heading);
        std::memcpy(info.root_turn, &turn, sizeof turn);
    }
    has_root_ = true;
    root_ = root;
    heading_ = heading;
    root = rig.up * dot(rig.up, root);
    rig.set(rig.pelvis, rig.turned_pelvis(pelvis, conj(heading)), wxyz);
}

RTI_TICK rti_status Session::pull(double time_s, rti_pose& out, rti_pull_info* info) noexcept {
    const std::int64_t began = now_ticks();
    rti_pull_info told = RTI_PULL_INFO_INIT;
    fetch(&feet_, sizeof feet_);
    fetch(out.rotations, static_cast<std::size_t>(out.joint_count) * 4 * sizeof(float));
    refresh();
    if (!std::isfinite(time_s)) time_s = pull_time_;
    const Rig& rig = timeline_.rig();
    const Lanes& lanes = timeline_.show(time_s);
    Vec3 root = lanes.root;
    rig.write(lanes, out.rotations);
    if (pull_flags_ & (RTI_FLAG_FOOT_LOCK | RTI_FLAG_PUSH_OUT)) pass(lanes, time_s, root, out.rotations, told);
    const bool in_place = (pull_flags_ & RTI_FLAG_ROOT_MOTION) != 0;
    if (in_place) extract_root(lanes, root, out.rotations, told);
    rig.write_root(root, out.root);
    // A pose over the origin has left the world.
    if (pull_flags_ & RTI_FLAG_HANDS && !in_place) hands(out.root, out.rotations);
    pull_time_ = time_s;
    const Plan* plan = timeline_.plan();
    told.state = static_cast<std::int32_t>(timeline_.state());
    told.plan = plan ? plan->number : 0;
    told.plan_age_s = plan ? time_s - plan->start_s : 0;
    if (info) {
        told.struct_size = info->struct_size;
        if (info->struct_size >= sizeof told) *info = told;
        else std::memcpy(info, &told, info->struct_size);
    }
    state_.store(told.state, std::memory_order_relaxed);
    late_.add(timeline_.late() - late_.get());
    fallbacks_.add(timeline_.fallbacks() - fallbacks_.get());
    pulled_.add();
    pull_ticks_.add(now_ticks() - began);
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
        if (popped_.epoch == epoch && to_model(*actor_.map, popped_, pose)) resampler_.add(popped_.time, pose, popped_.pushed);
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
    plan.frames = hop_.planned;
    for (int i = 0; i < plan.frames; ++i) {
        for (Quat& q : hop_.plan[i].local) q = normalize(q);
        reactor_.map->to_lanes(hop_.plan[i], plan.pose[i]);
    }
    plan.finish(reactor_.map->rig().packs);
    plans_.publish();
    planned_.store(work_epoch_, std::memory_order_release);
    hops_.add();
    hop_us_.add(ns / 1000);
    reaction_us_.add(static_cast<std::int64_t>(static_cast<double>(now_ticks() - mark_) * rate_.ns_per_tick() * 1e-3));
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
    const double us_per_tick = rate_.ns_per_tick() * 1e-3;
    push_ticks_.percentiles(us_per_tick, told.push_us);
    pull_ticks_.percentiles(us_per_tick, told.pull_us);
    hop_us_.percentiles(1, told.hop_us);
    reaction_us_.percentiles(1, told.reaction_us);
    told.struct_size = out.struct_size;
    std::memcpy(&out, &told, std::min<std::size_t>(out.struct_size, sizeof told));
}

}  // namespace rti
