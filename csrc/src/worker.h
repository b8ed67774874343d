// One model's worker thread: loads the planner, collects the hops that are due over all sessions, and has them planned together.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <future>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "planner.h"
#include "session.h"

namespace rti {

using Log = std::function<void(std::int32_t level, const std::string& text)>;

class Worker {
public:
    Worker(std::unique_ptr<Planner> planner, Log log);
    // Waits for the hop that runs.
    ~Worker();
    Worker(const Worker&) = delete;
    Worker& operator=(const Worker&) = delete;

    void add(std::shared_ptr<Session> session);
    // The worker forgets the session; a hop that runs for it is thrown away. Does not wait.
    void remove(std::uint64_t session);

    // RTI_OK once loaded, RTI_NOT_READY after `timeout_s` seconds, or why it failed; `text` then says more.
    rti_status wait(double timeout_s, std::string* text = nullptr);
    // The same, and the session is open.
    rti_status wait_open(const Session& session, double timeout_s, std::string* text);
    // On the worker's thread; waits for it.
    rti_status save_prompts(std::vector<std::string> texts, std::string path, std::string& why);

private:
    void run();
    bool load();
    void serve();
    void open(const std::shared_ptr<Session>& session);
    void hop_all();
    void settle(rti_status status, const std::string& text);
    void log(std::int32_t level, const std::string& text) const;

    std::unique_ptr<Planner> planner_;
    const Log log_;
    std::mutex mutex_;
    std::condition_variable wake_, settled_;
    bool stop_ = false, changed_ = false;
    rti_status status_ = RTI_NOT_READY;
    std::string text_;
    std::vector<std::shared_ptr<Session>> sessions_;
    std::deque<std::packaged_task<rti_status()>> tasks_;
    // The worker's own view of the sessions, and those that did not open.
    std::vector<std::shared_ptr<Session>> served_;
    std::vector<std::uint64_t> refused_;
    std::vector<Session*> due_;
    std::vector<Hop*> hops_;
    std::thread thread_;
};

}  // namespace rti
