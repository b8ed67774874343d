// One pair: what the engine's threads do with it (push, pull), and what the worker does (gather, deliver).
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "../include/rtinteract.h"
#include "clock.h"
#include "contact.h"
#include "histogram.h"
#include "mailbox.h"
#include "planner.h"
#include "retarget.h"
#include "ring.h"
#include "timeline.h"

namespace rti {

struct SessionConfig {
    Settings settings;
    LatePolicy policy;
    std::uint32_t flags = 0;
};

// One person's skeleton as the engine has it.
struct Person {
    std::unique_ptr<Retarget> map;
    std::vector<std::string> names;
};

class Session {
public:
    Session(std::uint64_t id, Person actor, Person reactor, SessionConfig config);

    // The engine's threads. Neither allocates, locks, nor makes a system call.
    rti_status push(std::int32_t person, double time_s, const rti_pose& pose) noexcept;
    rti_status pull(double time_s, rti_pose& out, rti_pull_info* info) noexcept;
    bool ready() const noexcept { return planned_.load(std::memory_order_acquire) == epoch_.load(std::memory_order_acquire); }
    void reset() noexcept { epoch_.fetch_add(1, std::memory_order_acq_rel); }

    void set_prompt(std::string text);
    void stats(rti_stats& out) const noexcept;
    std::string last_error() const;
    const Person& person(std::int32_t which) const noexcept { return which == RTI_ACTOR ? actor_ : reactor_; }
    std::uint64_t id() const noexcept { return id_; }
    const Settings& settings() const noexcept { return config_.settings; }

    // The worker's thread. opened() tells how many frames a hop takes; gather() is true when a hop is due, which then lies in
    // hop(); deliver() publishes what the planner made of it in `ns` nanoseconds; false where that failed.
    void opened(int hop);
    bool is_open() const noexcept { return open_.load(std::memory_order_acquire); }
    bool gather() noexcept;
    Hop& hop() noexcept { return hop_; }
    bool deliver(std::int64_t ns);
    void fail(const std::string& text);

private:
    rti_status refuse(Counter& counter, const char* text, rti_status status) noexcept;
    static bool to_model(const Retarget& map, Sample& sample, ModelPose& out) noexcept;
    bool see_actor(ModelPose& out) noexcept;
    void refresh() noexcept;
    void pass(ModelPose& pose, double time_s, const ModelPose* actor, rti_pull_info& info) noexcept;
    void extract_root(ModelPose& pose, rti_pull_info& info) noexcept;

    const std::uint64_t id_;
    const Person actor_, reactor_;
    const SessionConfig config_;

    std::atomic<std::uint64_t> epoch_{1}, planned_{0};
    std::atomic<bool> open_{false};
    PoseRing pushed_poses_, placed_poses_;
    Mailbox<Plan> plans_;
    std::atomic<const char*> push_fault_{nullptr};
    Counter pushed_, pulled_, rejected_poses_, rejected_times_, lost_poses_, lost_frames_, jumps_, hops_, failed_, late_, fallbacks_;
    Histogram push_ns_, pull_ns_, hop_ns_, reaction_ns_;
    std::atomic<std::int32_t> state_{RTI_STATE_WAITING};

    // The push thread's.
    std::uint64_t push_epoch_ = 0;
    double push_time_[2] = {0, 0};
    bool push_any_[2] = {false, false};

    // The pull thread's.
    Timeline timeline_;
    FootLock feet_;
    PushOut push_out_;
    Sample seen_;
    std::uint64_t pull_epoch_ = 0, placed_seen_ = 0;
    double pull_time_ = 0;
    ModelPose good_;
    Vec3 root_;
    Quat heading_;
    bool has_root_ = false;

    // The worker's.
    Resampler resampler_{id_};
    Sample popped_;
    std::uint64_t work_epoch_ = 0, number_ = 0, lost_so_far_ = 0, overflowed_ = 0;
    int hop_frames_ = 0;
    double next_s_ = 0;
    std::int64_t mark_ = 0;
    std::vector<ModelPose> window_;
    ModelPose place_;
    Hop hop_;

    mutable std::mutex text_mutex_;
    std::string prompt_, asked_, error_;
    bool prompt_changed_ = false;
};

}  // namespace rti
