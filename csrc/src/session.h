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
#include "machine.h"
#include "mailbox.h"
#include "planner.h"
#include "retarget.h"
#include "ring.h"
#include "timeline.h"

namespace rti {

// How much of what a pass finds is done, 0 to 1.
struct Strength {
    float foot_lock = 1, push_out = 1, hands = 1;
};

struct SessionConfig {
    Settings settings;
    LatePolicy policy;
    std::uint32_t flags = 0;
    Strength strength;
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
    int shown_joints() const noexcept { return timeline_.rig().joints; }
    void set_flags(std::uint32_t flags) noexcept { flags_.store(flags, std::memory_order_relaxed); }
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
    void prepare_pull() const noexcept;
    void refresh() noexcept;
    void forget(std::uint32_t passes) noexcept;
    void find_place() noexcept;
    bool see_actor() noexcept;
    static void mend(Sample& sample, int joints) noexcept;
    void pass(double time_s, Vec3& root, float* wxyz, rti_pull_info& info) noexcept;
    void push_out(float dt, Vec3& root, float* wxyz, rti_pull_info& info) noexcept;
    void hands(const float* root, float* wxyz) noexcept;
    void extract_root(const Lanes& lanes, Vec3& root, float* wxyz, rti_pull_info& info) noexcept;

    const std::uint64_t id_;
    const Person actor_, reactor_;
    const SessionConfig config_;
    const TickRate rate_;
    PoseRing placed_poses_;

    // A tick's own memory, in few lines and pages. What the threads share, then what the push thread writes.
    alignas(kLine) std::atomic<std::uint64_t> epoch_{1};
    std::atomic<std::uint64_t> planned_{0};
    std::atomic<bool> open_{false};
    std::atomic<const char*> push_fault_{nullptr};
    std::atomic<std::uint32_t> flags_;
    mutable std::atomic<bool> prepared_{false};  // what the next pull will touch
    PoseRing pushed_poses_;
    alignas(kLine) std::uint64_t push_epoch_ = 0;
    double push_time_[2] = {0, 0};
    bool push_any_[2] = {false, false};
    std::int32_t joints_[2];
    Counter pushed_, rejected_poses_, rejected_times_;
    Histogram push_ticks_;

    // The pull thread's, in the order in which a tick comes to it.
    alignas(kLine) std::uint64_t pull_epoch_ = 0;
    std::uint64_t placed_seen_ = 0;
    double pull_time_ = 0;
    std::uint32_t pull_flags_ = 0;  // of this pull
    Mailbox<Plan> plans_;
    const Strength strength_;
    std::atomic<std::int32_t> state_{RTI_STATE_WAITING};
    Counter pulled_, late_, fallbacks_;
    FootLock feet_;
    Timeline timeline_;
    Placed placed_;
    Histogram pull_ticks_;
    PushOut push_out_;
    Placed actor_placed_;
    Sample seen_;
    Vec3 root_;
    Quat heading_;
    bool has_root_ = false;

    // The worker's.
    alignas(kLine) Counter lost_poses_;
    Counter lost_frames_, jumps_, hops_, failed_;
    Histogram hop_us_, reaction_us_;
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
