#include "worker.h"

#include <algorithm>
#include <chrono>

namespace rti {
namespace {

// Push must not wake anybody (that is a system call), so the worker looks for itself; a hop comes this much later at most.
constexpr auto kPoll = std::chrono::milliseconds(2);

std::chrono::duration<double> seconds(double s) noexcept { return std::chrono::duration<double>(std::clamp(s, 0.0, 1e6)); }

}  // namespace

Worker::Worker(std::unique_ptr<Planner> planner, Log log) : planner_(std::move(planner)), log_(std::move(log)) {
    thread_ = std::thread([this] { run(); });
}

Worker::~Worker() {
    {
        const std::lock_guard<std::mutex> lock(mutex_);
        stop_ = true;
    }
    wake_.notify_all();
    thread_.join();
}

void Worker::log(std::int32_t level, const std::string& text) const {
    if (log_) log_(level, text);
}

void Worker::add(std::shared_ptr<Session> session) {
    const std::lock_guard<std::mutex> lock(mutex_);
    sessions_.push_back(std::move(session));
    changed_ = true;
    wake_.notify_all();
}

void Worker::remove(std::uint64_t session) {
    const std::lock_guard<std::mutex> lock(mutex_);
    sessions_.erase(std::remove_if(sessions_.begin(), sessions_.end(), [session](const auto& s) { return s->id() == session; }),
                    sessions_.end());
    changed_ = true;
    wake_.notify_all();
}

rti_status Worker::wait(double timeout_s, std::string* text) {
    std::unique_lock<std::mutex> lock(mutex_);
    settled_.wait_for(lock, seconds(timeout_s), [this] { return status_ != RTI_NOT_READY; });
    if (text) *text = text_;
    return status_;
}

rti_status Worker::wait_open(const Session& session, double timeout_s, std::string* text) {
    std::unique_lock<std::mutex> lock(mutex_);
    const auto refused = [&] { return std::find(refused_.begin(), refused_.end(), session.id()) != refused_.end(); };
    settled_.wait_for(lock, seconds(timeout_s), [&] { return status_ < 0 || session.is_open() || refused(); });
    if (text) *text = refused() ? session.last_error() : text_;
    if (status_ != RTI_OK) return status_;
    return refused() ? RTI_E_PLANNER : session.is_open() ? RTI_OK : RTI_NOT_READY;
}

rti_status Worker::save_prompts(std::vector<std::string> texts, std::string path, std::string& why) {
    std::packaged_task<rti_status()> task([this, &texts, &path, &why] { return planner_->save_prompts(texts, path, why); });
    std::future<rti_status> done = task.get_future();
    {
        const std::lock_guard<std::mutex> lock(mutex_);
        tasks_.push_back(std::move(task));
    }
    wake_.notify_all();
    return done.get();
}

void Worker::settle(rti_status status, const std::string& text) {
    {
        const std::lock_guard<std::mutex> lock(mutex_);
        status_ = status;
        text_ = text;
    }
    settled_.notify_all();
}

bool Worker::load() {
    std::string why;
    const rti_status status = planner_->load(why);
    if (status != RTI_OK) log(3, why);
    settle(status, why);
    return status == RTI_OK;
}

void Worker::open(const std::shared_ptr<Session>& session) {
    std::string why;
    const std::int32_t hop = planner_->open(session->id(), session->settings(), why);
    if (hop > 0 && hop <= kMaxHop) {
        session->opened(hop);
    } else {
        session->fail(why);
        log(3, why);
    }
    {
        const std::lock_guard<std::mutex> lock(mutex_);
        if (!session->is_open()) refused_.push_back(session->id());
    }
    settled_.notify_all();
}

void Worker::serve() {
    std::vector<std::shared_ptr<Session>> now;
    {
        const std::lock_guard<std::mutex> lock(mutex_);
        if (!changed_) return;
        changed_ = false;
        now = sessions_;
    }
    for (const auto& old : served_)
        if (std::find(now.begin(), now.end(), old) == now.end()) planner_->close(old->id());
    for (const auto& fresh : now)
        if (std::find(served_.begin(), served_.end(), fresh) == served_.end()) open(fresh);
    served_ = std::move(now);
}

void Worker::hop_all() {
    due_.clear();
    hops_.clear();
    for (const auto& session : served_)
        if (session->is_open() && session->gather()) {
            due_.push_back(session.get());
            hops_.push_back(&session->hop());
        }
    if (hops_.empty()) return;
    const std::int64_t began = now_ns();
    planner_->hop(hops_.data(), hops_.size());
    const std::int64_t took = now_ns() - began;
    for (Session* session : due_)
        if (!session->deliver(took)) log(2, session->hop().error);
}

void Worker::run() {
    const bool loaded = load();
    for (;;) {
        std::deque<std::packaged_task<rti_status()>> tasks;
        {
            std::unique_lock<std::mutex> lock(mutex_);
            const auto due = [this] { return stop_ || changed_ || !tasks_.empty(); };
            // A planner that did not load serves nobody; the sessions' rings overwrite themselves.
            if (!loaded || served_.empty()) wake_.wait(lock, due);
            else wake_.wait_for(lock, kPoll, due);
            if (stop_) break;
            tasks.swap(tasks_);
            if (!loaded) changed_ = false;
        }
        for (auto& task : tasks) task();
        if (!loaded) continue;
        serve();
        hop_all();
    }
    // It was made to be used on this thread, so it also ends here.
    for (const auto& session : served_) planner_->close(session->id());
    served_.clear();
    planner_.reset();
}

}  // namespace rti
