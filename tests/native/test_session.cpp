// Sessions over a planner of the tests' own: what the engine sees while everything goes wrong around it.
#include "check.h"
#include "moving.h"

TEST(a_session_follows_its_plans) {
    Scene scene;
    auto session = scene.session();
    Viewer viewer;
    CHECK(!session->ready());
    CHECK(viewer.pull(*session, scene.time) == RTI_NOT_READY && viewer.info.state == RTI_STATE_WAITING);
    play(scene, *session, viewer, 1.2, 60);
    CHECK(session->ready() && viewer.always_sound && viewer.info.state == RTI_STATE_LIVE && viewer.plans >= 6);
    // The plan is the actor's motion carried on, one metre beside.
    const ModelPose out = viewer.out.get(), actor = walker(scene.time);
    CHECK_AT_MOST(length(out.root - actor.root - Vec3{0, 0, 1}), 0.12);
    CHECK_AT_MOST(viewer.fastest, 4);
    const rti_stats stats = stats_of(*session);
    CHECK(stats.pushed == 72 && stats.pulled == 73 && stats.hops >= 6 && stats.failed_hops == 0);
    CHECK(stats.hop_us[0] > 4000 && stats.reaction_us[0] > stats.hop_us[0] && stats.reaction_us[0] < 100000);
}

TEST(any_tick_rate_is_served) {
    for (const double rate : {7.0, 240.0}) {
        Scene scene;
        auto session = scene.session();
        Viewer viewer;
        play(scene, *session, viewer, 2, rate);
        CHECK(viewer.always_sound && stats_of(*session).hops >= 9);
        CHECK_AT_MOST(length(viewer.out.get().root - walker(scene.time).root - Vec3{0, 0, 1}), 0.3);
    }
}

TEST(bad_pushes_are_refused_counted_and_not_shown) {
    Scene scene;
    auto session = scene.session();
    Viewer viewer;
    const float nan = std::numeric_limits<float>::quiet_NaN(), infinite = std::numeric_limits<float>::infinity();
    play(scene, *session, viewer, 1, 60, 1, [&](Buffers& in, int i) {
        in.pose.joint_count = i % 5 == 4 ? 21 : kJoints;
        if (i % 5 == 0) in.rotations[4 * (i % kJoints)] = nan;
        if (i % 5 == 1) in.pose.root[1] = infinite;
        if (i % 5 == 2) in.rotations[7] = 3;
    });
    const rti_stats stats = stats_of(*session);
    CHECK(stats.rejected_poses == 48 && stats.pushed == 12 && viewer.always_sound);
    CHECK(session->last_error().find("joint_count") != std::string::npos);
    CHECK(stats.hops > 0);

    Buffers in;
    CHECK(session->push(RTI_ACTOR, std::nan(""), in.pose) == RTI_E_TIME);
    CHECK(session->push(RTI_ACTOR, scene.time - 0.5, in.pose) == RTI_E_TIME);
    CHECK(stats_of(*session).rejected_times == 2);
    CHECK(session->push(RTI_ACTOR, scene.time - 60, in.pose) == RTI_OK);
}

TEST(time_that_runs_backwards_or_jumps_stops_nothing) {
    Scene scene;
    auto session = scene.session();
    Viewer viewer;
    play(scene, *session, viewer, 0.6, 60);
    scene.time -= 5;
    play(scene, *session, viewer, 0.6, 60);
    scene.time += 1000;
    play(scene, *session, viewer, 0.6, 60);
    for (int i = 0; i < 60; ++i) {
        scene.time -= 1 / 60.0;
        Buffers in;
        session->push(RTI_ACTOR, scene.time, in.pose);
        viewer.pull(*session, scene.time);
    }
    viewer.pull(*session, std::nan(""));
    viewer.pull(*session, -1e30);
    viewer.pull(*session, 1e30);
    scene.time += 10;
    play(scene, *session, viewer, 0.6, 60);
    const rti_stats stats = stats_of(*session);
    CHECK(viewer.always_sound && stats.time_jumps >= 3 && viewer.info.state == RTI_STATE_LIVE);
}

TEST(a_planner_that_fails_is_counted_and_recovered_from) {
    Scene scene;
    auto session = scene.session();
    Viewer viewer;
    play(scene, *session, viewer, 0.6, 60);
    scene.faults->fails = true;
    play(scene, *session, viewer, 1.2, 60);
    CHECK(viewer.info.state == RTI_STATE_SETTLE && stats_of(*session).failed_hops >= 5 && stats_of(*session).fallbacks == 1);
    CHECK(session->last_error() == "planner: failed on purpose" && scene.logged >= 5);
    scene.faults->fails = false;
    scene.faults->nan = true;
    play(scene, *session, viewer, 0.6, 60);
    CHECK(viewer.always_sound && session->last_error().find("NaN") != std::string::npos);
    scene.faults->nan = false;
    play(scene, *session, viewer, 1.5, 60);
    CHECK(viewer.always_sound && viewer.info.state == RTI_STATE_LIVE);
    CHECK_AT_MOST(length(viewer.out.get().root - walker(scene.time).root - Vec3{0, 0, 1}), 0.15);
    CHECK_AT_MOST(viewer.fastest, 5);
}

TEST(a_planner_that_hangs_leaves_a_body_that_settles_then_idles) {
    Scene scene;
    SessionConfig config;
    config.policy.idle_after_s = 0.7f;
    for (int i = 0; i < 30; ++i) config.policy.idle.push_back(walker(i / kFps, 0));
    auto session = scene.session(config);
    Viewer viewer;
    play(scene, *session, viewer, 0.6, 60);
    CHECK(viewer.states[RTI_STATE_SETTLE] == 0);
    scene.faults->delay_ms = 3000;
    play(scene, *session, viewer, 3, 60);
    for (const int state : {RTI_STATE_LIVE, RTI_STATE_HOLD, RTI_STATE_SETTLE, RTI_STATE_IDLE}) CHECK(viewer.states[state] > 0);
    scene.faults->delay_ms = 5;
    play(scene, *session, viewer, 2.5, 60);
    const rti_stats stats = stats_of(*session);
    CHECK(viewer.always_sound && viewer.info.state == RTI_STATE_LIVE && stats.late >= 1 && stats.fallbacks == 1);
    CHECK(stats.lost_frames > 60);
    CHECK_AT_MOST(viewer.fastest, 5);
}

TEST(a_planner_that_never_loads_leaves_sessions_that_idle) {
    Scene scene(true);
    auto session = scene.session();
    std::string text;
    CHECK(scene.worker->wait(5, &text) == RTI_E_PYTHON && text.find("broken one") != std::string::npos);
    CHECK(scene.worker->wait_open(*session, 5, &text) == RTI_E_PYTHON);
    Viewer viewer;
    play(scene, *session, viewer, 0.3, 60);
    CHECK(viewer.always_sound && viewer.info.state == RTI_STATE_WAITING && stats_of(*session).hops == 0);
}

TEST(a_placed_reactor_is_shown_and_blended_from) {
    Scene scene;
    auto session = scene.session();
    Viewer viewer;
    Buffers in;
    ModelPose stand = walker(0);
    stand.root = {scene.time > 0 ? 10.0f : 0, 0.96f, 2};
    in.set(stand);
    CHECK(session->push(RTI_REACTOR, scene.time, in.pose) == RTI_OK);
    CHECK(viewer.pull(*session, scene.time) == RTI_NOT_READY);
    CHECK_AT_MOST(length(viewer.out.get().root - stand.root), 1e-3);
    float fastest = 0;
    ModelPose last = viewer.out.get();
    for (int i = 0; i < 60; ++i) {
        play(scene, *session, viewer, 1 / 60.0, 60);
        fastest = std::max(fastest, length(viewer.out.get().root - last.root) * 60);
        last = viewer.out.get();
    }
    CHECK(viewer.plans > 0 && viewer.always_sound);
    CHECK_AT_MOST(fastest, 4.5);
}

TEST(reset_begins_a_new_scene) {
    Scene scene;
    auto session = scene.session();
    Viewer viewer;
    play(scene, *session, viewer, 0.6, 60);
    CHECK(session->ready());
    session->reset();
    CHECK(!session->ready());
    CHECK(viewer.pull(*session, scene.time) == RTI_NOT_READY && viewer.info.state == RTI_STATE_WAITING);
    scene.time = 1;
    play(scene, *session, viewer, 0.6, 60);
    CHECK(session->ready() && viewer.info.state == RTI_STATE_LIVE && viewer.always_sound);
}

TEST(root_motion_adds_up_to_the_way) {
    Scene scene;
    SessionConfig config, in_place;
    in_place.flags = RTI_FLAG_ROOT_MOTION;
    auto world = scene.session(config), local = scene.session(in_place);
    Viewer a, b;
    Buffers in;
    Vec3 place;
    Quat heading;
    bool begun = false;
    for (int i = 0; i < 90; ++i) {
        scene.time += 1 / 60.0;
        in.set(walker(scene.time));
        world->push(RTI_ACTOR, scene.time, in.pose);
        local->push(RTI_ACTOR, scene.time, in.pose);
        std::this_thread::sleep_for(std::chrono::milliseconds(14));
        a.pull(*world, scene.time), b.pull(*local, scene.time);
        if (!a.plans || a.plans != b.plans) {
            begun = false;
            continue;
        }
        const ModelPose pose = b.out.get(), truth = a.out.get();
        CHECK(pose.root.x == 0 && pose.root.z == 0);
        if (begun) {
            place = place + rotate(heading, {b.info.root_delta[0], 0, b.info.root_delta[2]});
            heading = mul(heading, {b.info.root_turn[0], b.info.root_turn[1], b.info.root_turn[2], b.info.root_turn[3]});
            CHECK_AT_MOST(length(place + Vec3{0, truth.root.y, 0} - truth.root), 2e-3);
            CHECK_AT_MOST(angle_between(mul(heading, pose.local[0]), truth.local[0]), 5e-3);
        } else {
            begun = i > 45;
            place = {truth.root.x, 0, truth.root.z};
            heading = yaw_of(truth.local[0]);
        }
    }
    CHECK(begun);
}

TEST(several_sessions_share_a_hop) {
    Scene scene;
    // Their hops are apart; while one is planned those of the others come due.
    scene.faults->delay_ms = 150;
    std::vector<std::shared_ptr<Session>> sessions;
    std::vector<std::unique_ptr<Viewer>> viewers;
    for (int i = 0; i < 4; ++i) sessions.push_back(scene.session()), viewers.push_back(std::make_unique<Viewer>());
    Buffers in;
    for (int i = 0; i < 60; ++i) {
        scene.time += 1 / 60.0;
        in.set(walker(scene.time));
        for (std::size_t s = 0; s < 4; ++s) {
            sessions[s]->push(RTI_ACTOR, scene.time, in.pose);
            viewers[s]->pull(*sessions[s], scene.time);
        }
        std::this_thread::sleep_for(std::chrono::milliseconds(16));
    }
    CHECK(scene.faults->together == 4);
    for (const auto& viewer : viewers) CHECK(viewer->always_sound && viewer->plans >= 3);
}

TEST(sessions_end_while_they_hop) {
    for (int round = 0; round < 4; ++round) {
        Scene scene;
        scene.faults->delay_ms = 150;
        auto first = scene.session(), second = scene.session();
        Buffers in;
        for (int i = 0; i < 20; ++i) {
            scene.time += 1 / 60.0;
            first->push(RTI_ACTOR, scene.time, in.pose);
            second->push(RTI_ACTOR, scene.time, in.pose);
        }
        while (scene.faults->inside == 0) std::this_thread::yield();
        const auto began = std::chrono::steady_clock::now();
        scene.worker->remove(first->id());
        first.reset();
        if (round % 2) scene.worker->remove(second->id());
        second.reset();
        CHECK(std::chrono::steady_clock::now() - began < std::chrono::milliseconds(100));
        // Either the worker ends with its sessions, or after it has seen them go.
        if (round < 2) std::this_thread::sleep_for(std::chrono::milliseconds(250));
        scene.worker.reset();
        CHECK(scene.faults->inside == 0 && scene.faults->opened == scene.faults->closed);
    }
}

TEST(one_thread_pushes_and_another_pulls) {
    Scene scene;
    SessionConfig config;
    config.flags = RTI_FLAG_FOOT_LOCK | RTI_FLAG_PUSH_OUT | RTI_FLAG_HANDS;
    auto session = scene.session(config);
    const char* longer = std::getenv("RTI_LONG_TESTS");
    const double seconds = longer ? 600 : 1.5;
    std::atomic<double> now{scene.time};
    std::atomic<bool> done{false};
    std::thread pusher([&] {
        Buffers in;
        const auto began = std::chrono::steady_clock::now();
        for (double t = 0; t < seconds; t += 1 / 240.0) {
            in.set(walker(10 + t));
            session->push(RTI_ACTOR, 10 + t, in.pose);
            now = 10 + t;
            if (static_cast<int>(t * 240) % 97 == 96) session->reset();
            std::this_thread::sleep_until(began + std::chrono::duration<double>(t));
        }
        done = true;
    });
    Viewer viewer;
    while (!done) {
        viewer.pull(*session, now);
        rti_stats stats = stats_of(*session);
        CHECK(stats.pulled >= static_cast<std::uint64_t>(viewer.ticks));
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    pusher.join();
    CHECK(viewer.always_sound && stats_of(*session).hops > 3);
}

// Both stand at the same place and the reactor's feet glide with the actor.
static void passes_play(Scene& scene, Session& session, Viewer& viewer, double seconds) {
    play(scene, session, viewer, seconds, 60, 1, [&](Buffers& in, int) {
        ModelPose pose;
        pose.root = {0.15f * static_cast<float>(scene.time - 10), 0.94f, 0};
        in.set(pose);
    });
}

TEST(passes_are_switched_while_it_plays) {
    Scene scene;
    scene.faults->aside = 0.1f;
    auto session = scene.session();
    Viewer viewer;
    float slide[3] = {0, 0, 0}, depth[3] = {0, 0, 0};
    const std::uint32_t flags[3] = {0, RTI_FLAG_FOOT_LOCK | RTI_FLAG_PUSH_OUT, 0};
    for (int k = 0; k < 3; ++k) {
        session->set_flags(flags[k]);
        for (int i = 0; i < 60; ++i) {
            passes_play(scene, *session, viewer, 1 / 60.0);
            slide[k] = std::max(slide[k], viewer.info.foot_slide);
            depth[k] = std::max(depth[k], viewer.info.penetration);
        }
    }
    CHECK(viewer.always_sound && slide[0] == 0 && depth[0] == 0 && slide[2] == 0 && depth[2] == 0);
    CHECK(slide[1] > 0.02f && depth[1] > 0.1f);
}

TEST(strengths_say_how_much_of_a_way_is_gone) {
    float apart[3];
    for (int k = 0; k < 3; ++k) {
        Scene scene;
        scene.faults->aside = 0.1f;
        SessionConfig config;
        config.flags = RTI_FLAG_PUSH_OUT;
        config.strength.push_out = 0.5f * static_cast<float>(k);
        auto session = scene.session(config);
        Viewer viewer;
        passes_play(scene, *session, viewer, 1);
        apart[k] = std::fabs(viewer.out.get().root.z);
        CHECK(viewer.always_sound && viewer.info.penetration > 0.1f);
    }
    CHECK_AT_MOST(std::fabs(apart[0] - 0.1f), 1e-3);
    CHECK(apart[2] > 0.25f);
    CHECK_AT_MOST(std::fabs(apart[1] - 0.5f * (apart[0] + apart[2])), 0.01);
}

TEST(one_actor_may_have_other_axes_than_the_reactor) {
    // A reactor in the engine's centimetres is kept out of an actor in metres, at the same place as one in metres is.
    Vec3 root[2];
    for (int k = 0; k < 2; ++k) {
        Scene scene;
        scene.faults->aside = 0.1f;
        SessionConfig config;
        config.flags = RTI_FLAG_PUSH_OUT | RTI_FLAG_FOOT_LOCK | RTI_FLAG_HANDS;
        Person reactor = Scene::person(k == 0 ? "rtinteract" : "unreal");
        const Basis basis = reactor.map->basis();
        auto session = std::make_shared<Session>(900 + static_cast<std::uint64_t>(k), Scene::person(), std::move(reactor), config);
        scene.worker->add(session);
        Viewer viewer;
        passes_play(scene, *session, viewer, 1);
        const ModelPose shown = viewer.out.get();
        root[k] = basis.vector_to_model(&shown.root.x);
        CHECK(viewer.always_sound);
    }
    CHECK(std::fabs(root[0].z) > 0.25f);
    CHECK_AT_MOST(length(root[1] - root[0]), 0.03);
}
