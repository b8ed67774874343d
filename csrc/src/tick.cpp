// What the engine's threads do each tick.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "session.h"

namespace rti {
namespace {

// Lengths of a rotation that are taken (and mended), squared.
constexpr float kShort = 0.98f, kLong = 1.02f;

// Four at a time, the last four again where they are no whole four more: a skeleton has that many joints.
RTI_INLINE bool unit(const float* q, int count) noexcept {
    const Four one = all(1), least = all(kShort), most = all(kLong);
    Four bad = all(0);
    for (int j = 0; j < count; j += 4) {
        Four w, x, y, z;
        const float* at = q + 4 * std::min(j, count - 4);
        columns({at, at + 4, at + 8, at + 12}, w, x, y, z);
        const Four n2 = w * w + x * x + y * y + z * z;
        // NaN fails both comparisons, infinity the second.
        bad = bad + where_more(n2, least, where_more(most, n2, all(0), one), one);
    }
    return sum(bad) == 0;
}

}  // namespace

rti_status Session::refuse(Counter& counter, const char* text, rti_status status) noexcept {
    counter.add();
    push_fault_.store(text, std::memory_order_release);
    return status;
}

// Clocks and their counts take a tenth of a tick, so one tick in seven is timed for all: at 30, 60 and 120 Hz not always one on
// which a plan comes, as one in eight would be.
RTI_INLINE bool is_timed(const Counter& ticks) noexcept { return ticks.get() % 7 == 0; }

RTI_TICK rti_status Session::push(std::int32_t person, double time_s, const rti_pose& pose) noexcept {
    const std::int64_t began = now_ticks();
    PoseRing& ring = person == RTI_ACTOR ? pushed_poses_ : placed_poses_;
    ring.prepare();
    const bool timed = is_timed(pushed_);
    if (timed) push_ticks_.prepare();
    fetch_tick_code();
    // A pull is likely to come next.
    prepare_pull();
    prepared_.store(true, std::memory_order_relaxed);
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
    if (timed) push_ticks_.add(now_ticks() - began);
    return RTI_OK;
}

// Begin to fetch what a pull will touch, but for the caller's own.
RTI_INLINE void Session::prepare_pull() const noexcept {
    fetch_to(&pull_epoch_, &timeline_);
    timeline_.prepare();
    if (is_timed(pulled_)) pull_ticks_.prepare();
    fetch(&placed_, 12 * sizeof(Quat));
    fetch(&placed_.position, 12 * sizeof(Place));
    if (plans_.fresh()) fetch_seam_code();
}

// What a pass remembers of the time before a cut, or before it was switched off, is no longer true.
void Session::forget(std::uint32_t passes) noexcept {
    if (passes & RTI_FLAG_FOOT_LOCK) feet_.reset();
    if (passes & RTI_FLAG_PUSH_OUT) push_out_.reset();
    if (passes & RTI_FLAG_ROOT_MOTION) has_root_ = false;
}

RTI_TICK void Session::refresh() noexcept {
    const Plan* plan = plans_.take();
    const std::uint64_t epoch = epoch_.load(std::memory_order_acquire);
    const std::uint32_t flags = flags_.load(std::memory_order_relaxed);
    if (const std::uint32_t on = flags & ~pull_flags_; on) forget(on);
    pull_flags_ = flags;
    if (epoch != pull_epoch_) {
        pull_epoch_ = epoch;
        timeline_.reset();
        forget(~0u);
    }
    if (plan && plan->epoch == epoch) timeline_.accept(*plan);
    // The slot that the timeline looked into is the writer's again.
    else if (plan) timeline_.reset();
    if (!timeline_.plan()) find_place();
}

// Where the reactor was stood, while there is no plan.
void Session::find_place() noexcept {
    const std::uint64_t placed = placed_poses_.written();
    if (placed == placed_seen_ || !placed_poses_.newest(seen_)) return;
    placed_seen_ = placed;
    ModelPose pose;
    if (seen_.epoch == pull_epoch_ && to_model(*reactor_.map, seen_, pose)) timeline_.place(pose);
}

bool Session::see_actor() noexcept {
    if (!pushed_poses_.newest(seen_) || seen_.epoch != pull_epoch_) return false;
    mend(seen_, joints_[RTI_ACTOR]);
    return true;
}

void Session::push_out(float dt, Vec3& root, float* wxyz, rti_pull_info& info) noexcept {
    const Rig &own = timeline_.rig(), &other = actor_.map->rig();
    const Basis &here = reactor_.map->basis(), &there = actor_.map->basis();
    const float* seen = seen_.values.data();
    other.stand(Vec3{seen[0], seen[1], seen[2]} * there.metres_per_unit, seen + 3, other.all, other.nodes, actor_placed_);
    Obstacle obstacle = obstacle_of(other, actor_placed_);
    for (Vec3* p : {&obstacle.pelvis, &obstacle.neck, &obstacle.head, &obstacle.crown}) *p = here.out(there.in(*p));
    own.stand(root, wxyz, own.all, own.nodes, placed_);
    Vec3 way;
    info.penetration = push_out_.apply(own, placed_, obstacle, dt, strength_.push_out, way, wxyz);
    root = root + way;
}

RTI_TICK void Session::pass(double time_s, Vec3& root, float* wxyz, rti_pull_info& info) noexcept {
    const Rig& rig = timeline_.rig();
    const auto dt = static_cast<float>(std::clamp(time_s - pull_time_, 0.0, 0.25));
    if (pull_flags_ & RTI_FLAG_PUSH_OUT && see_actor()) push_out(dt, root, wxyz, info);
    else if (pull_flags_ & RTI_FLAG_FOOT_LOCK) rig.stand(root, wxyz, rig.feet, rig.feet_nodes, placed_);
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
    const bool timed = is_timed(pulled_);
    const std::int64_t began = timed ? now_ticks() : 0;
    rti_pull_info unasked;
    // A caller of an older header has room for less.
    const bool whole = info && info->struct_size >= sizeof unasked;
    rti_pull_info& told = whole ? *info : unasked;
    const std::uint32_t size = info ? info->struct_size : 0;
    told = RTI_PULL_INFO_INIT;
    told.struct_size = size;
    if (!prepared_.load(std::memory_order_relaxed)) prepare_pull();
    prepared_.store(false, std::memory_order_relaxed);
    fetch(out.rotations, static_cast<std::size_t>(out.joint_count) * 4 * sizeof(float));
    refresh();
    if (!std::isfinite(time_s)) time_s = pull_time_;
    const Rig& rig = timeline_.rig();
    const Lanes& lanes = timeline_.show(time_s);
    Vec3 root = lanes.root;
    rig.write(lanes, out.rotations);
    if (pull_flags_ & (RTI_FLAG_FOOT_LOCK | RTI_FLAG_PUSH_OUT)) pass(time_s, root, out.rotations, told);
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
    if (info && !whole) std::memcpy(info, &told, size);
    state_.store(told.state, std::memory_order_relaxed);
    late_.add(timeline_.late() - late_.get());
    fallbacks_.add(timeline_.fallbacks() - fallbacks_.get());
    pulled_.add();
    if (timed) pull_ticks_.add(now_ticks() - began);
    return plan ? RTI_OK : RTI_NOT_READY;
}

}  // namespace rti
