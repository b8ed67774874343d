// 10,000 ticks of push and pull beside a planner that plans: what they take, and how often they allocate.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <new>
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

int main() {
    Scene scene;
    SessionConfig config;
    config.flags = RTI_FLAG_FOOT_LOCK;
    auto session = scene.session(config);
    Buffers in, out;
    rti_pull_info info = RTI_PULL_INFO_INIT;
    std::vector<double> us;
    us.reserve(10000);
    for (int i = 0; i < 10000; ++i) {
        scene.time += 1 / 60.0;
        in.set(walker(scene.time));
        const std::int64_t began = now_ns();
        counting = true;
        session->push(RTI_ACTOR, scene.time, in.pose);
        session->pull(scene.time, out.pose, &info);
        counting = false;
        us.push_back(static_cast<double>(now_ns() - began) * 1e-3);
        std::this_thread::sleep_for(std::chrono::microseconds(300));
    }
    std::sort(us.begin(), us.end());
    std::printf("allocations=%ld plans=%llu p50_us=%.3f p95_us=%.3f p99_us=%.3f\n", allocations,
                static_cast<unsigned long long>(info.plan), us[5000], us[9500], us[9900]);
}
