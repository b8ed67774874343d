/* An engine's loop in plain C: 60 Hz with jitter and a synthetic render load, one actor, NPCs that react to it.
 *
 *   engine_loop [--seconds 10] [--npcs 2] [--flags 3] [--model FILE] [--python EXECUTABLE] [--python-library LIBPYTHON]
 *
 * Prints the table of frame times and of the library's own counters. Exits with 0 whatever the planner did, so long as every
 * frame had a pose that can be shown; with 1 otherwise, and with 2 on a bad command line. */
#define _POSIX_C_SOURCE 200809L
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "../include/rtinteract.h"

enum { MAX_NPCS = 16, JOINTS = 22, RATE = 60, MAX_TICKS = 600 * RATE };

static double now_s(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void sleep_until(double when) {
    const double left = when - now_s();
    struct timespec t;
    if (left <= 0) return;
    t.tv_sec = (time_t)left;
    t.tv_nsec = (long)(1e9 * (left - (double)t.tv_sec));
    nanosleep(&t, NULL);
}

/* What the renderer would do: a part of the frame's time spent computing. */
static double render(double seconds) {
    const double end = now_s() + seconds;
    double x = 1;
    while (now_s() < end) x += sin(x);
    return x;
}

static unsigned noise_state = 1;
static double noise(void) {
    noise_state = noise_state * 1664525u + 1013904223u;
    return noise_state / 4294967296.0;
}

static void log_line(void *user, int32_t level, const char *text) {
    (void)user;
    fprintf(stderr, "rtinteract[%d]: %s\n", (int)level, text);
}

/* Someone who shifts their weight and lifts a hand, as if to greet. */
static void actor_pose(double t, rti_pose *pose) {
    const float lift = (float)(0.6 + 0.5 * sin(1.5 * t)), sway = (float)(0.05 * sin(0.8 * t));
    int j;
    pose->root[0] = sway;
    pose->root[1] = 0.94f;
    pose->root[2] = 0;
    for (j = 0; j < JOINTS; ++j) {
        float *q = pose->rotations + 4 * j;
        /* Joints 16 and 17 are the shoulders: arms hang down, the right one rises. */
        const float angle = j == 16 ? -1.3f : j == 17 ? 1.3f - 1.6f * lift : 0;
        q[0] = cosf(0.5f * angle);
        q[1] = q[2] = 0;
        q[3] = sinf(0.5f * angle);
    }
}

static int can_be_shown(const rti_pose *pose) {
    int j, ok = isfinite(pose->root[0]) && isfinite(pose->root[1]) && isfinite(pose->root[2]);
    for (j = 0; j < pose->joint_count; ++j) {
        const float *q = pose->rotations + 4 * j;
        ok = ok && fabsf(q[0] * q[0] + q[1] * q[1] + q[2] * q[2] + q[3] * q[3] - 1) < 2e-3f;
    }
    return ok;
}

static int compare(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void row(const char *name, double *values, int n, const char *unit) {
    if (n == 0) return;
    qsort(values, (size_t)n, sizeof *values, compare);
    printf("%-34s %9.2f %9.2f %9.2f  %s\n", name, values[n / 2], values[n * 95 / 100], values[n * 99 / 100], unit);
}

static void report_session(int i, const rti_session *session) {
    rti_stats s = RTI_STATS_INIT;
    char error[256];
    rti_session_stats(session, &s);
    rti_session_last_error(session, error, sizeof error);
    printf("npc %d: %llu plans, %llu failed, %llu late, %llu ran out, %llu frames lost; last fault: %s\n", i,
           (unsigned long long)s.hops, (unsigned long long)s.failed_hops, (unsigned long long)s.late, (unsigned long long)s.fallbacks,
           (unsigned long long)s.lost_frames, error[0] ? error : "none");
    printf("%-34s %9.2f %9.2f %9.2f  us\n", "  push", s.push_us[0], s.push_us[1], s.push_us[2]);
    printf("%-34s %9.2f %9.2f %9.2f  us\n", "  pull", s.pull_us[0], s.pull_us[1], s.pull_us[2]);
    printf("%-34s %9.2f %9.2f %9.2f  ms\n", "  hop", s.hop_us[0] / 1e3, s.hop_us[1] / 1e3, s.hop_us[2] / 1e3);
    printf("%-34s %9.2f %9.2f %9.2f  ms\n", "  last push to plan", s.reaction_us[0] / 1e3, s.reaction_us[1] / 1e3,
           s.reaction_us[2] / 1e3);
}

/* The tick that completed the hop of a plan: the first one not before the last model frame that the plan has heard. */
static double heard_at(const double *times, int tick, double start) {
    const double last_frame = start - 1.0 / 30 - 1e-5;
    while (tick > 0 && times[tick - 1] >= last_frame) --tick;
    return times[tick];
}

static int run(rti_session *const *npcs, int count, int ticks) {
    static double frame_ms[MAX_TICKS], times[MAX_TICKS], push_us[MAX_TICKS], pull_us[MAX_TICKS], both_us[MAX_TICKS];
    static double reaction_ms[MAX_TICKS];
    static float rotations[MAX_NPCS + 1][JOINTS * 4];
    uint64_t shown[MAX_NPCS] = {0};
    double sink = 0, deadline = now_s(), last = deadline;
    int tick, i, bad = 0, reactions = 0;
    for (tick = 0; tick < ticks; ++tick) {
        rti_pose actor = RTI_POSE_INIT, npc = RTI_POSE_INIT;
        const double began = now_s(), time = began;
        double push = 0, pull = 0;
        times[tick] = time;
        actor.joint_count = npc.joint_count = JOINTS;
        actor.rotations = rotations[MAX_NPCS];
        actor_pose(time, &actor);
        for (i = 0; i < count; ++i) {
            double before, between;
            rti_pull_info info = RTI_PULL_INFO_INIT;
            npc.rotations = rotations[i];
            before = now_s();
            rti_session_push_pose(npcs[i], RTI_ACTOR, time, &actor);
            between = now_s();
            rti_session_pull_pose(npcs[i], time, &npc, &info);
            push += between - before;
            pull += now_s() - between;
            bad += !can_be_shown(&npc);
            /* The first plan of all answers what was heard before the loop began. */
            if (info.plan != shown[i] && shown[i] != 0 && reactions < MAX_TICKS)
                reaction_ms[reactions++] = 1e3 * (now_s() - heard_at(times, tick, time - info.plan_age_s));
            shown[i] = info.plan;
        }
        push_us[tick] = 1e6 * push / count;
        pull_us[tick] = 1e6 * pull / count;
        both_us[tick] = push_us[tick] + pull_us[tick];
        sink += render(0.006 * (0.5 + noise()));
        frame_ms[tick] = 1e3 * (began - last);
        last = began;
        deadline += (0.7 + 0.6 * noise()) / RATE;
        sleep_until(deadline);
    }
    printf("%-34s %9s %9s %9s\n", "", "p50", "p95", "p99");
    row("frame", frame_ms + 1, ticks - 1, "ms");
    row("push, one NPC", push_us, ticks, "us");
    row("pull, one NPC", pull_us, ticks, "us");
    row("push + pull, one NPC", both_us, ticks, "us");
    row("last pushed tick to first new pose", reaction_ms, reactions, "ms");
    printf("poses that could not be shown: %d (of %d; render sum %.1f)\n", bad, ticks * count, sink);
    return bad;
}

int main(int argc, char **argv) {
    rti_model_desc model_desc = RTI_MODEL_DESC_INIT;
    rti_session_desc session_desc = RTI_SESSION_DESC_INIT;
    rti_model *model = NULL;
    rti_session *npcs[MAX_NPCS] = {NULL};
    double seconds = 10;
    char error[512];
    int i, bad, count = 2;
    session_desc.flags = RTI_FLAG_FOOT_LOCK | RTI_FLAG_PUSH_OUT;
    for (i = 1; i + 1 < argc; i += 2) {
        if (!strcmp(argv[i], "--seconds")) seconds = atof(argv[i + 1]);
        else if (!strcmp(argv[i], "--npcs")) count = atoi(argv[i + 1]);
        else if (!strcmp(argv[i], "--flags")) session_desc.flags = (uint32_t)atoi(argv[i + 1]);
        else if (!strcmp(argv[i], "--model")) model_desc.path = argv[i + 1];
        else if (!strcmp(argv[i], "--python")) model_desc.python_executable = argv[i + 1];
        else if (!strcmp(argv[i], "--python-library")) model_desc.python_library = argv[i + 1];
        else return 2;
    }
    if (i < argc || !(seconds >= 0.1 && seconds * RATE <= MAX_TICKS) || count < 1 || count > MAX_NPCS) return 2;
    model_desc.log = log_line;
    if (rti_model_load(&model_desc, &model) != RTI_OK) {
        /* A game goes on without: sessions of no model stand. */
        rti_last_error(error, sizeof error);
        printf("model: %s\n", error);
    }
    for (i = 0; i < count; ++i) {
        session_desc.seed = (uint64_t)i;
        if (rti_session_create(model, &session_desc, &npcs[i]) != RTI_OK) {
            rti_last_error(error, sizeof error);
            printf("session: %s\n", error);
            return 1;
        }
    }
    for (i = 0; i < count && model; ++i)
        if (rti_session_warmup(npcs[i], 120) == RTI_NOT_READY) {
            printf("warm-up: not ready yet\n");
        } else if (rti_session_warmup(npcs[i], 0) < 0) {
            rti_last_error(error, sizeof error);
            printf("warm-up: %s\n", error);
            break;
        }
    bad = run(npcs, count, (int)(seconds * RATE));
    for (i = 0; i < count; ++i) report_session(i, npcs[i]);
    /* In any order: sessions keep their model. */
    rti_model_destroy(&model);
    for (i = 0; i < count; ++i) rti_session_destroy(&npcs[i]);
    return bad != 0;
}
