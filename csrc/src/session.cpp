#include "session.h"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace rti {
namespace {

// At 240 Hz two seconds of poses; more than a worker that is not hung ever leaves.
constexpr std::size_t kRing = 512;

}  // namespace

Session::Session(std::uint64_t id, Person actor, Person reactor, SessionConfig config)
    : id_(id), actor_(std::move(actor)), reactor_(std::move(reactor)), config_(std::move(config)),
      placed_poses_(static_cast<std::size_t>(reactor_.map->joints()), 4), flags_(config_.flags),
      pushed_poses_(static_cast<std::size_t>(actor_.map->joints()), kRing), joints_{actor_.map->joints(), reactor_.map->joints()},
      strength_(config_.strength), timeline_(config_.policy, *reactor_.map) {
    seen_.values.resize(3 + 4 * static_cast<std::size_t>(std::max(joints_[RTI_ACTOR], joints_[RTI_REACTOR])));
    popped_.values.resize(seen_.values.size());
    hop_.session = id_;
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
    hop_.contact = (flags_.load(std::memory_order_relaxed) & RTI_FLAG_CONTACT) != 0;
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
