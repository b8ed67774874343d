// Ring, mailbox, clock, lanes, inertia: each alone.
#include "check.h"
#include "moving.h"

TEST(rotations_compose_and_invert) {
    const Quat a = from_axis_angle({0, 1, 0}, 0.7f), b = from_axis_angle({1, 0, 0}, -1.1f);
    const Vec3 v{0.3f, -0.2f, 0.9f};
    CHECK_AT_MOST(length(rotate(mul(a, b), v) - rotate(a, rotate(b, v))), 1e-6);
    CHECK_AT_MOST(angle_between(exp(log(a)), a), 1e-6);
    CHECK_AT_MOST(std::fabs(angle_between(slerp(a, b, 0.25f), a) - 0.25f * angle_between(a, b)), 1e-5);
    CHECK_AT_MOST(length(rotate(between(v, {0, 0, -1}), normalize(v)) - Vec3{0, 0, -1}), 1e-5);
    CHECK_AT_MOST(length(rotate(between({0, 1, 0}, {0, -1, 0}), {0, 1, 0}) - Vec3{0, -1, 0}), 1e-5);
}

TEST(a_full_ring_overwrites_the_oldest_and_counts_it) {
    PoseRing ring(1, 8);
    Sample out;
    out.values.resize(7);
    std::uint64_t lost = 0;
    CHECK(!ring.pop(out, lost) && !ring.newest(out));
    for (int i = 0; i < 20; ++i) {
        const float f = static_cast<float>(i), root[3] = {f, f + 1, f + 2}, rotation[4] = {f + 3, f + 4, f + 5, f + 6};
        ring.push(i, 5, i, root, rotation);
    }
    CHECK(ring.newest(out) && out.time == 19 && out.values[0] == 19 && out.values[6] == 25);
    CHECK(ring.pop(out, lost) && lost == 12 && out.time == 12 && out.epoch == 5 && out.pushed == 12);
    for (int k = 0; k < 7; ++k) CHECK(out.values[static_cast<std::size_t>(k)] == static_cast<float>(12 + k));
    int rest = 0;
    while (ring.pop(out, lost)) ++rest;
    CHECK(rest == 7 && lost == 12);
}

TEST(a_ring_never_hands_out_a_torn_pose) {
    PoseRing ring(22, 8);
    std::atomic<bool> done{false};
    std::thread producer([&] {
        float rotations[88], root[3];
        for (int i = 0; i < 40000; ++i) {
            for (float& x : rotations) x = static_cast<float>(i);
            for (float& x : root) x = static_cast<float>(i);
            ring.push(i, 1, 0, root, rotations);
        }
        done = true;
    });
    Sample popped, peeked;
    popped.values.resize(91), peeked.values.resize(91);
    std::uint64_t lost = 0, read = 0;
    double last = -1;
    bool torn = false, backwards = false;
    const auto look = [&](const Sample& s) {
        for (const float x : s.values) torn |= x != static_cast<float>(s.time);
    };
    while (!done || ring.written() != read + lost) {
        if (ring.newest(peeked)) look(peeked);
        if (!ring.pop(popped, lost)) continue;
        ++read;
        look(popped);
        backwards |= popped.time <= last;
        last = popped.time;
    }
    producer.join();
    CHECK(!torn && !backwards && read + lost == 40000 && read > 0);
}

TEST(a_mailbox_hands_out_the_newest_whole_value) {
    Mailbox<std::array<int, 64>> box;
    CHECK(box.take() == nullptr);
    std::thread writer([&] {
        for (int i = 1; i <= 20000; ++i) {
            box.draft().fill(i);
            box.publish();
        }
    });
    int last = 0;
    bool whole = true, forward_only = true;
    while (last != 20000)
        if (const auto* value = box.take()) {
            for (const int x : *value) whole &= x == value->front();
            forward_only &= value->front() > last;
            last = value->front();
        }
    writer.join();
    CHECK(whole && forward_only);
}

TEST(percentiles_are_right_within_a_bucket) {
    Histogram h;
    double p[3];
    h.percentiles(1, p);
    CHECK(p[0] == 0 && p[2] == 0);
    for (int i = 1; i <= 1000; ++i) h.add(i * 1000);
    h.percentiles(1e-3, p);
    CHECK(std::fabs(p[0] - 500) < 20 && std::fabs(p[1] - 950) < 35 && std::fabs(p[2] - 990) < 35);
    // Out of range is the nearest in range.
    Histogram far;
    for (const std::int64_t x : {std::int64_t{-5}, std::int64_t{0}, std::int64_t{1}, std::int64_t{1} << 60}) far.add(x);
    far.percentiles(1, p);
    CHECK(p[0] < 1.1 && p[2] > 1e9 && p[2] < 1.2e9);
}

static void resample_at(double rate_hz, double jitter) {
    Resampler clock;
    ModelPose frame;
    std::int64_t mark = 0;
    double t = 3.2, worst_root = 0, worst_turn = 0, first = -1;
    int frames = 0;
    unsigned noise = 1;
    while (t < 9.2) {
        clock.add(t, walker(t), 7);
        while (clock.ready() > 0) {
            const double at = clock.take(1, &frame, mark) - 1 / kFps;
            if (first < 0) first = at;
            const ModelPose truth = walker(at);
            worst_root = std::max<double>(worst_root, length(frame.root - truth.root));
            worst_turn = std::max<double>(worst_turn, farthest_turn(frame, truth));
            CHECK(mark == 7 && std::fabs(at - first - frames / kFps) < 1e-9);
            ++frames;
        }
        noise = noise * 1664525u + 1013904223u;
        t += (1 + jitter * (noise / 4294967296.0 - 0.5)) / rate_hz;
    }
    CHECK(frames >= 5.8 * kFps && clock.jumps() == 0 && clock.overflowed() == 0);
    // Motion between two ticks is not known; what a straight line misses grows with the square of the step.
    const double step = (1 + jitter) / rate_hz;
    CHECK_AT_MOST(worst_root, 81 * 0.02 * step * step / 8 + 1e-4);
    CHECK_AT_MOST(worst_turn, 2 * 25 * 0.4 * step * step / 8 + 2e-3);
}

TEST(any_tick_rate_becomes_30_hz) {
    for (const double rate : {7.0, 30.0, 60.0, 144.0, 240.0}) {
        resample_at(rate, 0);
        resample_at(rate, 0.8);
    }
}

// When the frames after a session's hops lie, for an actor who comes at `start_s`.
static std::vector<double> hops_of(std::uint64_t number, double start_s, double rate_hz) {
    Resampler clock(number);
    ModelPose frames[4];
    std::int64_t mark = 0;
    std::vector<double> ends;
    for (int i = 0; ends.size() < 6; ++i) {
        const double t = start_s + i / rate_hz;
        clock.add(t, walker(t), 0);
        if (clock.ready() < 4) continue;
        const double next = clock.take(4, frames, mark);
        // A hop is due at the tick that completes it.
        if (!ends.empty()) CHECK(std::fabs(next - ends.back() - 4 / kFps) < 1e-9 && t - (next - 1 / kFps) < 1 / rate_hz + 1e-6);
        ends.push_back(next);
    }
    return ends;
}

TEST(sessions_hop_apart_whenever_they_came) {
    for (const double rate : {30.0, 60.0, 144.0}) {
        for (const int ticks : {0, 1, 3, 5, 6}) {
            const double first = hops_of(4, 0, rate)[0];
            // Hops of the first two lie half a hop apart, those of four a quarter.
            const double expected[] = {0, 0.5, 0.25, 0.75};
            for (std::uint64_t number = 0; number < 4; ++number) {
                const double apart = (hops_of(number, ticks / rate, rate)[0] - first) * kFps / 4 - expected[number];
                CHECK(std::fabs(apart - std::round(apart)) < 1e-6);
            }
        }
    }
}

TEST(a_clock_that_adds_up_its_steps_loses_no_tick) {
    Resampler clock;
    ModelPose frame;
    std::int64_t mark = 0;
    double t = 0;
    for (int i = 0; i < 3000; ++i, t += 1 / kFps) {
        clock.add(t, walker(t), i);
        CHECK(clock.ready() == 1);
        clock.take(1, &frame, mark);
        CHECK(mark == i);
    }
}

TEST(gaps_are_interpolated_and_pauses_are_jumped) {
    Resampler clock;
    clock.add(0, walker(0), 0);
    clock.add(0.5, walker(0.5), 0);
    CHECK(clock.ready() == 16 && clock.jumps() == 0);
    clock.add(60, walker(60), 0);
    CHECK(clock.ready() == 17 && clock.jumps() == 1);
    clock.add(2, walker(2), 0);
    CHECK(clock.ready() == 18 && clock.jumps() == 2);
    ModelPose frames[18];
    std::int64_t mark;
    CHECK(std::fabs(clock.take(18, frames, mark) - (2 + 1 / kFps)) < 1e-9);
}

TEST(packs_turn_as_single_rotations_do) {
    const Lanes a = shown(walker(0.3)), b = shown(walker(0.9));
    Lanes half, back;
    mix(a, b, 0.5f, kPacks, half);
    for (int i = 0; i < kPacks; ++i) {
        back.pack[i] = a.pack[i];
        turn(back.pack[i], way_between(a.pack[i], b.pack[i]), 1, Turns{}, 0);
    }
    for (int n = 0; n < kJoints; ++n) {
        CHECK_AT_MOST(angle_between(half.get(n), slerp(a.get(n), b.get(n), 0.5f)), 1e-4);
        CHECK_AT_MOST(angle_between(back.get(n), b.get(n)), 1e-4);
    }
    CHECK(sound(half, kPacks));
    for (const float wrong : {0.5f, 1.01f, std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
        Lanes bad = a, lost = a;
        bad.pack[2].w[3] = wrong;
        bad.pack[2].x[3] = 0;
        lost.root.y = wrong;
        CHECK(!sound(bad, kPacks) && sound(lost, kPacks) == std::isfinite(wrong));
    }
}

TEST(a_blend_has_no_jump_and_bounded_speed_and_acceleration) {
    // Old and new motion differ by half a metre, a radian, and their velocities.
    for (const float dt : {1 / 240.0f, 1 / 60.0f, 1 / 30.0f}) {
        Inertia inertia;
        const auto moving = [](double t) { return shown(walker(t, 1.0f)); };
        const auto other = [](double t) {
            Lanes p = shown(walker(1.7 * t + 2, 0.2f, 0.5f));
            p.root.x = static_cast<float>(t) * 0.3f;
            return p;
        };
        const Lanes before = moving(1 - dt), start = moving(1);
        Vec3 speed = (start.root - before.root) * (1 / dt);
        inertia.begin(start, before, other(1), other(1 - dt), dt, 0.25f, kPacks);
        Lanes last = start;
        CHECK(inertia.active());
        for (int i = 1; static_cast<float>(i) * dt < 2; ++i) {
            Lanes p = other(1 + static_cast<double>(dt) * i);
            inertia.apply(p, dt, kPacks);
            const Vec3 now = (p.root - last.root) * (1 / dt);
            CHECK_AT_MOST(length(now), 4.5);
            CHECK_AT_MOST(length(now - speed) / dt, 45 + 2 / dt * 0.05);
            CHECK_AT_MOST(farthest_turn(last, p) / dt, 20);
            CHECK(sound(p, kPacks));
            speed = now;
            last = p;
        }
        CHECK(!inertia.active());
        CHECK_AT_MOST(length(last.root - other(1 + std::floor(2 / dt - 1e-3) * dt).root), 0.05);
    }
}
