// Push and pull on a thread whose first system call, but for its end, ends the process; a planner plans beside it.
#include <cstdio>

#if defined(__linux__)
#  include <cstddef>

#  include <linux/filter.h>
#  include <linux/seccomp.h>
#  include <sys/prctl.h>
#  include <sys/syscall.h>
#  include <unistd.h>
#endif

#include "moving.h"

#if defined(__linux__)
// From here on this thread may only end. (Strict mode would do, but also forbids the processor's own clock.)
static bool fall_silent() {
    sock_filter rules[] = {
        {BPF_LD | BPF_W | BPF_ABS, 0, 0, offsetof(seccomp_data, nr)},
        {BPF_JMP | BPF_JEQ | BPF_K, 0, 1, SYS_exit},
        {BPF_RET | BPF_K, 0, 0, SECCOMP_RET_ALLOW},
        {BPF_RET | BPF_K, 0, 0, SECCOMP_RET_KILL_PROCESS},
    };
    sock_fprog program{4, rules};
    return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 && prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0;
}
#endif

int main() {
#if !defined(__linux__)
    std::puts("skipped");
#else
    Scene scene;
    SessionConfig config;
    config.flags = RTI_FLAG_FOOT_LOCK | RTI_FLAG_PUSH_OUT | RTI_FLAG_HANDS;
    auto session = scene.session(config);
    Buffers in, out;
    std::atomic<int> ticks{0};
    std::atomic<std::uint64_t> plans{0};
    const auto began = std::chrono::steady_clock::now();
    const auto run = [&] {
        rti_pull_info info = RTI_PULL_INFO_INIT;
        if (!fall_silent()) return;
        double next = 0, t = 0;
        while (t < 1) {
            t = std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count();
            if (t < next) continue;
            next += 1 / 600.0;
            in.set(walker(10 + t));
            session->push(RTI_ACTOR, 10 + t, in.pose);
            session->pull(10 + t, out.pose, &info);
            plans.store(info.plan);
            ticks.fetch_add(1);
        }
        // The way out of a thread that the library takes is longer than what is allowed.
        syscall(SYS_exit, 0);
    };
    std::thread(run).detach();
    std::this_thread::sleep_for(std::chrono::milliseconds(1500));
    if (ticks == 0) std::printf("skipped: this kernel has no filters; ");
    std::printf("ticks=%d plans=%llu\n", ticks.load(), static_cast<unsigned long long>(plans.load()));
    std::fflush(stdout);
    scene.worker.reset();
    // The thread never returned, so what it used is left as it is.
    _exit(0);
#endif
}
