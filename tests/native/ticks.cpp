// What a tick of push and pull takes, hot and beside a full load, and how often it allocates.
//   ticks [loaded ticks] [flags] [preset]
// hot: 10,000 ticks 100 us apart, nothing between them. loaded: between ticks this thread sleeps, then walks through more memory
// than a core's own caches hold, as a renderer does; every hop computes and walks through memory for 40 ms on the worker.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <new>
#include <string>
#include <vector>

#include "moving.h"

namespace {
// Of this thread alone: the worker may allocate.
thread_local bool counting = false;
thread_local long allocations = 0;
}  // namespace

#if defined(__GLIBC__)
extern "C" void* __libc_malloc(std::size_t size);
extern "C" void* malloc(std::size_t size) {
    allocations += counting;
    return __libc_malloc(size);
}
#else
void* operator new(std::size_t size) {
    allocations += counting;
    if (void* p = std::malloc(size)) return p;
    throw std::bad_alloc();
}
void operator delete(void* p) noexcept { std::free(p); }
void operator delete(void* p, std::size_t) noexcept { std::free(p); }
#endif

namespace {

constexpr std::size_t kRender = 6u << 20, kHop = 6u << 20, kLine = 64;

// Touch every line of some memory; the sum keeps the compiler from leaving it out.
class Walk {
public:
    explicit Walk(std::size_t bytes) : memory_(bytes, 1) {}
    void once() noexcept {
        for (std::size_t i = 0; i < memory_.size(); i += kLine) sum_ += memory_[i]++;
    }

private:
    std::vector<unsigned char> memory_;
    volatile unsigned sum_ = 0;
};

// The fake planner, whose hops compute.
class BusyPlanner : public FakePlanner {
public:
    using FakePlanner::FakePlanner;
    void hop(Hop* const* hops, std::size_t count) noexcept override {
        const auto end = std::chrono::steady_clock::now() + std::chrono::milliseconds(40);
        while (std::chrono::steady_clock::now() < end) walk_.once();
        FakePlanner::hop(hops, count);
    }

private:
    Walk walk_{kHop};
};

struct Times {
    std::vector<double> push, pull, both;
    explicit Times(std::size_t n) { push.reserve(n), pull.reserve(n), both.reserve(n); }
};

void print(const char* mode, const char* what, std::vector<double>& ns) {
    std::sort(ns.begin(), ns.end());
    const std::size_t n = ns.size();
    std::printf("%s %s p50_us=%.3f p95_us=%.3f p99_us=%.3f worst_us=%.1f\n", mode, what, ns[n / 2] * 1e-3, ns[n * 95 / 100] * 1e-3,
                ns[n * 99 / 100] * 1e-3, ns[n - 1] * 1e-3);
}

double clock_ns() {
    std::vector<double> ns;
    for (int i = 0; i < 2000; ++i) {
        const std::int64_t began = now_ns();
        ns.push_back(static_cast<double>(now_ns() - began));
    }
    std::sort(ns.begin(), ns.end());
    return ns[ns.size() / 2];
}

// One tick at the wall clock's time.
void tick(Session& session, Buffers& in, Buffers& out, rti_pull_info& info, Times* times) {
    const std::int64_t at = now_ns();
    const double time = static_cast<double>(at) * 1e-9;
    in.set(walker(std::fmod(time, 1000.0)));
    const std::int64_t began = now_ns();
    counting = true;
    session.push(RTI_ACTOR, time, in.pose);
    const std::int64_t between = now_ns();
    session.pull(time, out.pose, &info);
    counting = false;
    const std::int64_t ended = now_ns();
    if (!times) return;
    times->push.push_back(static_cast<double>(between - began));
    times->pull.push_back(static_cast<double>(ended - between));
    times->both.push_back(static_cast<double>(ended - began));
}

}  // namespace

int main(int argc, char** argv) {
    const int loaded = argc > 1 ? std::atoi(argv[1]) : 3000;
    SessionConfig config;
    config.flags = argc > 2 ? static_cast<std::uint32_t>(std::atoi(argv[2])) : 1u;
    auto faults = std::make_shared<FakePlanner::Faults>();
    faults->delay_ms = 0;
    Worker worker(std::make_unique<BusyPlanner>(faults), {});
    auto session = std::make_shared<Session>(1, Scene::person(), Scene::person(), config);
    worker.add(session);
    Buffers in, out;
    rti_pull_info info = RTI_PULL_INFO_INIT;
    for (int i = 0; i < 500; ++i) {
        tick(*session, in, out, info, nullptr);
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    Times hot(10000), cold(static_cast<std::size_t>(loaded));
    for (int i = 0; i < 10000; ++i) {
        const std::int64_t next = now_ns() + 100000;
        tick(*session, in, out, info, &hot);
        while (now_ns() < next) {}
    }
    Walk render(kRender);
    for (int i = 0; i < loaded; ++i) {
        std::this_thread::sleep_for(std::chrono::microseconds(500));
        render.once();
        tick(*session, in, out, info, &cold);
    }
    std::printf("allocations=%ld plans=%llu clock_ns=%.0f\n", allocations, static_cast<unsigned long long>(info.plan), clock_ns());
    for (auto& [mode, times] : {std::pair<const char*, Times*>{"hot", &hot}, {"loaded", &cold}}) {
        print(mode, "push", times->push);
        print(mode, "pull", times->pull);
        print(mode, "push+pull", times->both);
    }
}
