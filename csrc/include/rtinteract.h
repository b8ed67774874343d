/* rtinteract: one person's poses in, the other person's reaction out, at the engine's own tick.
 *
 * Valid C99 and C++. Nothing throws, exits or prints across this header.
 *
 * Axes and units: a pose is in the engine's own axes and length units, which rti_skeleton_desc names; rotations are unit
 *   quaternions w, x, y, z, each joint's in its parent's frame, the root's in the world. Time is in seconds of the host's
 *   clock, and should not decrease.
 * Ownership: every buffer is the caller's and is copied before the call returns.
 * Threads: rti_session_push_pose belongs to one thread, rti_session_pull_pose to one thread (the same or another). Neither
 *   allocates, locks, makes a system call, or enters Python. Calls marked "off the frame thread" may block.
 * Persons: RTI_ACTOR is the one that the engine moves, RTI_REACTOR the one that rtinteract moves.
 * Versions: every struct begins with its own struct_size and grows at its end only. Initialise with the INIT macros.
 */
#ifndef RTINTERACT_H
#define RTINTERACT_H

#include <stddef.h>
#include <stdint.h>

#if defined(_WIN32)
#  if defined(RTI_BUILD)
#    define RTI_API __declspec(dllexport)
#  else
#    define RTI_API __declspec(dllimport)
#  endif
#elif defined(__GNUC__)
#  define RTI_API __attribute__((visibility("default")))
#else
#  define RTI_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* Major version in the upper 16 bits, minor in the lower. A library takes callers of its own major and of no later minor. */
#define RTI_ABI_VERSION 0x00010001u

/* 0 is success, negative an error, positive "not yet". */
typedef int32_t rti_status;
enum {
    RTI_OK = 0,
    RTI_NOT_READY = 1,      /* no plan yet, or the model still loads: what was written is a sound stand-in */
    RTI_E_ARGUMENT = -1,    /* an argument is missing or out of range */
    RTI_E_VERSION = -2,     /* header and library do not fit: abi_version or struct_size */
    RTI_E_SKELETON = -3,    /* the skeleton cannot be matched to the model's */
    RTI_E_POSE = -4,        /* a pushed pose is not finite, not of unit quaternions, or of another joint count */
    RTI_E_TIME = -5,        /* a pushed time is not finite, or not later than the one before */
    RTI_E_FILE = -6,        /* a file is missing or unreadable */
    RTI_E_FORMAT = -7,      /* bytes are not a model of rtinteract */
    RTI_E_PYTHON = -8,      /* Python or the rtinteract package is missing or cannot start */
    RTI_E_PLANNER = -9,     /* the planner failed; sessions go on without new plans */
    RTI_E_MEMORY = -10,
    RTI_E_INTERNAL = -11
};

enum { RTI_ACTOR = 0, RTI_REACTOR = 1 };

/* Whose axes and units a pose is in. */
enum {
    RTI_AXES_RTINTERACT = 0, /* m, right-handed, +Y up, people face +Z */
    RTI_AXES_UNREAL = 1,     /* cm, left-handed, +Z up, +X forward */
    RTI_AXES_UNITY = 2,      /* m, left-handed, +Y up, +Z forward */
    RTI_AXES_GODOT = 3,      /* m, right-handed, +Y up, as glTF */
    RTI_AXES_CUSTOM = 4      /* rti_skeleton_desc.basis and metres_per_unit */
};

/* What rti_session_pull_pose shows. */
enum {
    RTI_STATE_WAITING = 0, /* no plan has come: the placed pose, the idle clip, or the rest pose */
    RTI_STATE_LIVE = 1,    /* a plan that is due */
    RTI_STATE_HOLD = 2,    /* the next plan is late; the one before it still covers the time */
    RTI_STATE_SETTLE = 3,  /* past the last plan: its velocity dies away and the pose stands */
    RTI_STATE_IDLE = 4     /* the idle clip */
};

enum {
    RTI_FLAG_FOOT_LOCK = 1,   /* planted feet stay where they stand */
    RTI_FLAG_PUSH_OUT = 2,    /* the reactor is kept out of the actor's body */
    RTI_FLAG_ROOT_MOTION = 4, /* the pose stays over the origin; rti_pull_info holds the way of the root */
    RTI_FLAG_HANDS = 8,       /* hands that touch the actor reach the same places of its own body, whatever its size */
    RTI_FLAG_CONTACT = 16     /* plans bring the reactor's hands to where the two are about to touch. Since 1.1 */
};

typedef struct rti_model rti_model;     /* immutable, shareable between sessions and threads */
typedef struct rti_session rti_session; /* one pair, mutable */

/* level: 0 debug, 1 information, 2 warning, 3 error. Called on the worker thread; text lives until the call returns. */
typedef void (*rti_log_fn)(void *user, int32_t level, const char *text);

typedef struct rti_model_desc {
    uint32_t struct_size;
    uint32_t abi_version;
    const char *path;              /* a .safetensors model; NULL with data NULL: the one that ships with the package */
    const void *data;              /* or the file's bytes; copied */
    size_t data_size;
    const char *device;            /* "auto", "cpu", "cuda", ...; NULL is "auto" */
    const char *precision;         /* "auto", "float32", "bfloat16"; NULL is "auto" */
    int32_t threads;               /* CPU threads of a hop; 0 leaves the library's choice */
    int32_t reserved;              /* 0 */
    uint64_t vram_limit;           /* bytes of GPU memory that may be taken; 0 for no limit */
    const char *prompt_bank;       /* a file of rti_model_save_prompts, or NULL */
    const char *python_executable; /* interpreter whose environment holds rtinteract; NULL: the one it was built with */
    const char *python_library;    /* its shared libpython; NULL: the one it was built with */
    rti_log_fn log;                /* or NULL */
    void *log_user;
} rti_model_desc;

#define RTI_MODEL_DESC_INIT \
    { (uint32_t)sizeof(rti_model_desc), RTI_ABI_VERSION, NULL, NULL, 0, NULL, NULL, 0, 0, 0, NULL, NULL, NULL, NULL, NULL }

typedef struct rti_skeleton_desc {
    uint32_t struct_size;
    int32_t axes;                   /* RTI_AXES_... */
    const char *preset;             /* "smpl22", "ue4", "ue5", "unity", "mixamo", "vrm", "godot"; NULL: the arrays below */
    int32_t joint_count;            /* of the arrays */
    float metres_per_unit;          /* RTI_AXES_CUSTOM only */
    const char *const *names;       /* [joint_count] */
    const int32_t *parents;         /* [joint_count]; -1 for the root, a parent stands before its children */
    const float *rest_translations; /* [joint_count][3] in the parent's frame, engine units and axes: the T-pose */
    const float *rest_rotations;    /* [joint_count][4] wxyz in the parent's frame, or NULL for none */
    float basis[9];                 /* RTI_AXES_CUSTOM only: row-major, engine vector to +X left, +Y up, +Z forward */
    int32_t reserved;               /* 0 */
} rti_skeleton_desc;

#define RTI_SKELETON_DESC_INIT \
    { (uint32_t)sizeof(rti_skeleton_desc), RTI_AXES_RTINTERACT, "smpl22", 0, 1.0f, NULL, NULL, NULL, NULL, \
      { 1, 0, 0, 0, 1, 0, 0, 0, 1 }, 0 }

/* One pose. rotations points at joint_count quaternions of the caller; pull_pose writes through it. */
typedef struct rti_pose {
    uint32_t struct_size;
    int32_t joint_count;
    float root[3];     /* the root joint in the world, engine units */
    int32_t reserved;  /* 0 */
    float *rotations;  /* [joint_count][4] wxyz, in the parent's frame; the root's in the world */
} rti_pose;

#define RTI_POSE_INIT { (uint32_t)sizeof(rti_pose), 0, { 0, 0, 0 }, 0, NULL }

typedef struct rti_session_desc {
    uint32_t struct_size;
    uint32_t abi_version;
    const rti_skeleton_desc *actor;    /* its skeleton; NULL: the model's own joints and axes */
    const rti_skeleton_desc *reactor;  /* NULL: the actor's */
    const char *prompt;                /* what the two do, UTF-8; NULL for none */
    uint64_t seed;
    int32_t window;                    /* frames of history at 30 Hz; 0: the model's default (so for the next three) */
    int32_t horizon;                   /* frames a plan reaches past now; at most 64 */
    int32_t hop;                       /* frames between plans; a multiple of 4 */
    int32_t iterations;                /* sampler iterations a hop */
    uint32_t flags;                    /* RTI_FLAG_... */
    float blend_s;                     /* how long a new plan takes over from the old one */
    float settle_s;                    /* how long the last velocity takes to die away once plans are overdue */
    float idle_after_s;                /* after so long past the last plan the idle clip begins */
    const rti_pose *idle;              /* [idle_count] poses at 30 Hz, looped; or NULL */
    int32_t idle_count;
    int32_t reserved;                  /* 0 */
    /* Since 1.1: how much of what a pass finds is done, 0 to 1. */
    float foot_lock;                   /* of the way back to where a foot stood */
    float push_out;                    /* of the way out of the actor's body */
    float hands;                       /* of the way to the place that is touched */
    float reserved_strength;           /* 0 */
} rti_session_desc;

#define RTI_SESSION_DESC_INIT \
    { (uint32_t)sizeof(rti_session_desc), RTI_ABI_VERSION, NULL, NULL, NULL, 0, 0, 0, 0, 0, RTI_FLAG_FOOT_LOCK, 0.25f, 0.4f, 2.0f, \
      NULL, 0, 0, 1.0f, 1.0f, 1.0f, 0 }

typedef struct rti_pull_info {
    uint32_t struct_size;
    int32_t state;           /* RTI_STATE_... */
    uint64_t plan;           /* number of the plan shown, from 1; 0 before the first */
    double plan_age_s;       /* time pulled minus the time of the plan's first frame (s) */
    float root_delta[3];     /* RTI_FLAG_ROOT_MOTION: way since the last pull, in the character's own frame then (engine units) */
    float root_turn[4];      /* and its turn about the vertical, wxyz */
    float foot_slide;        /* how far foot locking moved the feet this tick, the larger of both (m) */
    float penetration;       /* how deep the bodies would have met (m) */
    int32_t reserved;        /* 0 */
} rti_pull_info;

#define RTI_PULL_INFO_INIT { (uint32_t)sizeof(rti_pull_info), 0, 0, 0, { 0, 0, 0 }, { 1, 0, 0, 0 }, 0, 0, 0 }

/* Percentiles are of all calls since the session began (microseconds, within 5 %). */
typedef struct rti_stats {
    uint32_t struct_size;
    int32_t state;           /* RTI_STATE_... of the last pull */
    uint64_t pushed;         /* poses taken */
    uint64_t pulled;
    uint64_t rejected_poses; /* RTI_E_POSE */
    uint64_t rejected_times; /* RTI_E_TIME */
    uint64_t lost_poses;     /* overwritten in the ring before the worker read them */
    uint64_t lost_frames;    /* 30 Hz frames skipped because the planner was too slow */
    uint64_t time_jumps;     /* gaps and steps back of the engine's clock that were bridged */
    uint64_t hops;           /* plans made */
    uint64_t failed_hops;    /* hops that failed or gave an unsound plan */
    uint64_t late;           /* times that a pull found the next plan overdue */
    uint64_t fallbacks;      /* times that the last plan ran out */
    double push_us[3];       /* p50, p95, p99 of one tick in seven */
    double pull_us[3];
    double hop_us[3];
    double reaction_us[3];   /* from the push that completed a hop to the moment its plan could be pulled */
} rti_stats;

#define RTI_STATS_INIT \
    { (uint32_t)sizeof(rti_stats), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, { 0, 0, 0 }, { 0, 0, 0 }, { 0, 0, 0 }, { 0, 0, 0 } }

/* The library's RTI_ABI_VERSION. Any thread. */
RTI_API uint32_t rti_abi_version(void);

/* What this library is: its version, compiler and flags; static text for a log, never NULL. Any thread. Since 1.1. */
RTI_API const char *rti_build_info(void);

/* A name such as "RTI_E_POSE"; static text, never NULL. Any thread. */
RTI_API const char *rti_status_name(rti_status status);

/* Copy why the last call of this thread failed (not push and pull: see rti_session_last_error) to text [capacity], cut and
 * terminated. Returns the length it would have, as snprintf does. Any thread. */
RTI_API size_t rti_last_error(char *text, size_t capacity);

/* Begin to load a model. Returns at once; the worker thread starts Python and reads the weights. *out is the caller's, to be
 * given to rti_model_destroy. RTI_E_FILE and RTI_E_FORMAT tell a missing or foreign file before anything is started; *out is
 * then NULL. Off the frame thread. */
RTI_API rti_status rti_model_load(const rti_model_desc *desc, rti_model **out);

/* Wait up to timeout_s for the model to be loaded: RTI_OK, RTI_NOT_READY, or why it failed. 0 only asks. Any thread. */
RTI_API rti_status rti_model_wait(rti_model *model, double timeout_s);

/* Encode texts [count] and write them to a prompt bank at path, so that an engine can ship without the text encoder's cost.
 * Blocks until the model has loaded and they are written. Off the frame thread. */
RTI_API rti_status rti_model_save_prompts(rti_model *model, const char *const *texts, int32_t count, const char *path);

/* Give the model back and set *model to NULL; sessions that use it keep it alive. With the last holder it waits for the hop
 * that runs. NULL is a no-op. Off the frame thread. */
RTI_API void rti_model_destroy(rti_model **model);

/* A session of a model, which may still be loading; model NULL gives one that never plans (it idles). *out is the caller's, to
 * be given to rti_session_destroy. RTI_E_SKELETON says which joint could not be matched. Off the frame thread. */
RTI_API rti_status rti_session_create(rti_model *model, const rti_session_desc *desc, rti_session **out);

/* Wait up to timeout_s until the model has loaded and a hop has been tried on this session's settings, so that the first true
 * hop is as fast as the later ones: RTI_OK, RTI_NOT_READY, or why it failed. Off the frame thread. */
RTI_API rti_status rti_session_warmup(rti_session *session, double timeout_s);

/* What the two do from the next hop on; encoded on the worker. text is UTF-8, copied; NULL for none. Any thread but the frame
 * thread: it takes a lock. */
RTI_API rti_status rti_session_set_prompt(rti_session *session, const char *text);

/* Switch the passes: RTI_FLAG_... values, all others off. From the next pull on, RTI_FLAG_CONTACT from the next hop on. Any
 * thread; neither blocks nor allocates. Since 1.1. */
RTI_API rti_status rti_session_set_flags(rti_session *session, uint32_t flags);

/* Push a person's pose at time_s. Of the actor every tick, at any rate; of the reactor once, before the first plan, to say where
 * it stands. A pose that is refused (RTI_E_POSE, RTI_E_TIME, counted) changes nothing: the last good one goes on. The push
 * thread. */
RTI_API rti_status rti_session_push_pose(rti_session *session, int32_t person, double time_s, const rti_pose *pose);

/* RTI_OK once a plan can be shown, else RTI_NOT_READY. Any thread. */
RTI_API rti_status rti_session_ready(const rti_session *session);

/* Write the reactor's pose at time_s to out (out->rotations [joint_count][4] is the caller's) and, unless NULL, how it came to be
 * to info. A sound pose is written whenever the arguments are: RTI_NOT_READY only says that no plan is behind it. The pull
 * thread. */
RTI_API rti_status rti_session_pull_pose(rti_session *session, double time_s, rti_pose *out, rti_pull_info *info);

/* Counters and percentiles so far. Any thread. */
RTI_API rti_status rti_session_stats(const rti_session *session, rti_stats *out);

/* Copy the newest fault of this session (a refused pose, a failed hop) to text [capacity]; returns as rti_last_error. Empty where
 * there was none. Any thread but the frame thread. */
RTI_API size_t rti_session_last_error(const rti_session *session, char *text, size_t capacity);

/* Joints of a pose of this person; RTI_E_ARGUMENT for another than the two. Any thread. */
RTI_API int32_t rti_session_joint_count(const rti_session *session, int32_t person);

/* Name of a joint, in the order of poses; NULL out of range. Lives as long as the session. Any thread. */
RTI_API const char *rti_session_joint_name(const rti_session *session, int32_t person, int32_t joint);

/* Forget both persons; the next push begins a new scene. Settings and prompt stay. Neither blocks nor allocates. Any thread. */
RTI_API rti_status rti_session_reset(rti_session *session);

/* End a session and set *session to NULL, also while it hops; never waits for the planner. No push or pull may run. NULL is a
 * no-op. Off the frame thread. */
RTI_API void rti_session_destroy(rti_session **session);

#ifdef __cplusplus
}
#endif

#endif /* RTINTERACT_H */
