// The C ABI: checks arguments, turns structs into the core's own, and lets no exception through.
#include "../include/rtinteract.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <new>
#include <stdexcept>

#include "descs.h"
#include "worker.h"

using namespace rti;

struct rti_model {
    std::shared_ptr<Worker> worker;
};

// The session itself lies behind the handle: a tick that looked for it elsewhere would wait for one more cold page.
struct rti_session {
    rti_session(std::uint64_t id, Person actor, Person reactor, SessionConfig config)
        : core(id, std::move(actor), std::move(reactor), std::move(config)) {}

    Session core;
    std::shared_ptr<Worker> worker;
    std::shared_ptr<rti_session> self;  // the caller's share; the worker has its own
};

namespace {

std::string& last_error() {
    thread_local std::string text;
    return text;
}

rti_status failed(rti_status status, const char* text) noexcept {
    try {
        last_error() = text;
    } catch (...) {
        // Without memory for the text the status must do.
    }
    return status;
}

// Runs the body of a function of the ABI; what it throws becomes a status and the text of rti_last_error.
template <class Body>
rti_status guard(Body body) noexcept {
    try {
        return body();
    } catch (const Failure& failure) {
        return failed(failure.status, failure.text.c_str());
    } catch (const std::invalid_argument& error) {
        return failed(RTI_E_SKELETON, error.what());
    } catch (const std::bad_alloc&) {
        return failed(RTI_E_MEMORY, "out of memory");
    } catch (const std::exception& error) {
        return failed(RTI_E_INTERNAL, error.what());
    } catch (...) {
        return failed(RTI_E_INTERNAL, "unknown exception");
    }
}

std::size_t copy_text(const std::string& from, char* to, std::size_t capacity) noexcept {
    if (to && capacity > 0) {
        const std::size_t n = std::min(capacity - 1, from.size());
        std::memcpy(to, from.data(), n);
        to[n] = 0;
    }
    return from.size();
}

#define RTI_TEXT_OF(x) #x
#define RTI_TEXT(x) RTI_TEXT_OF(x)
#ifndef RTI_BUILD_FLAGS
#  define RTI_BUILD_FLAGS "flags unknown"
#endif
#if defined(__clang__)
constexpr const char* kBuildInfo = "clang " __clang_version__ ", " RTI_BUILD_FLAGS;
#elif defined(__GNUC__)
constexpr const char* kBuildInfo = "GCC " __VERSION__ ", " RTI_BUILD_FLAGS;
#elif defined(_MSC_VER)
constexpr const char* kBuildInfo = "MSVC " RTI_TEXT(_MSC_VER) ", " RTI_BUILD_FLAGS;
#else
constexpr const char* kBuildInfo = RTI_BUILD_FLAGS;
#endif

}  // namespace

extern "C" {

uint32_t rti_abi_version(void) { return RTI_ABI_VERSION; }

const char* rti_build_info(void) { return kBuildInfo; }

const char* rti_status_name(rti_status status) {
    switch (status) {
        case RTI_OK: return "RTI_OK";
        case RTI_NOT_READY: return "RTI_NOT_READY";
        case RTI_E_ARGUMENT: return "RTI_E_ARGUMENT";
        case RTI_E_VERSION: return "RTI_E_VERSION";
        case RTI_E_SKELETON: return "RTI_E_SKELETON";
        case RTI_E_POSE: return "RTI_E_POSE";
        case RTI_E_TIME: return "RTI_E_TIME";
        case RTI_E_FILE: return "RTI_E_FILE";
        case RTI_E_FORMAT: return "RTI_E_FORMAT";
        case RTI_E_PYTHON: return "RTI_E_PYTHON";
        case RTI_E_PLANNER: return "RTI_E_PLANNER";
        case RTI_E_MEMORY: return "RTI_E_MEMORY";
        case RTI_E_INTERNAL: return "RTI_E_INTERNAL";
        default: return "unknown status";
    }
}

size_t rti_last_error(char* text, size_t capacity) { return copy_text(last_error(), text, capacity); }

rti_status rti_model_load(const rti_model_desc* desc, rti_model** out) {
    return guard([&]() -> rti_status {
        require(out != nullptr, "model_load: expected out, got NULL");
        *out = nullptr;
        require(desc != nullptr, "model_load: expected desc, got NULL");
        const rti_model_desc d = read(*desc);
        check_version(d.abi_version, "model");
        require(!d.path || !d.data, "model: expected path or data, got both; leave one NULL");
        require(d.threads >= 0 && d.threads <= 1024, "model.threads: expected 0 to 1024");
        ModelOptions options;
        if (d.path) {
            check_file(d.path);
            options.path = d.path;
        }
        if (d.data) {
            check_container(static_cast<const unsigned char*>(d.data), d.data_size, d.data_size);
            options.bytes.assign(static_cast<const char*>(d.data), d.data_size);
        }
        options.device = text_of(d.device, "auto");
        options.precision = text_of(d.precision, "auto");
        options.prompt_bank = text_of(d.prompt_bank);
        options.python_executable = text_of(d.python_executable);
        options.python_library = text_of(d.python_library);
        options.threads = d.threads;
        options.vram_limit = d.vram_limit;
        Log log;
        if (d.log)
            log = [f = d.log, user = d.log_user](std::int32_t level, const std::string& text) { f(user, level, text.c_str()); };
        auto model = std::make_unique<rti_model>();
        model->worker = std::make_shared<Worker>(make_python_planner(std::move(options)), std::move(log));
        *out = model.release();
        return RTI_OK;
    });
}

rti_status rti_model_wait(rti_model* model, double timeout_s) {
    return guard([&]() -> rti_status {
        require(model != nullptr, "model_wait: expected a model, got NULL");
        std::string why;
        const rti_status status = model->worker->wait(timeout_s, &why);
        if (status < 0) throw Failure{status, why};
        return status;
    });
}

rti_status rti_model_save_prompts(rti_model* model, const char* const* texts, int32_t count, const char* path) {
    return guard([&]() -> rti_status {
        require(model && texts && path && count > 0, "save_prompts: expected a model, at least one text and a path, got NULL or none");
        std::vector<std::string> all;
        for (std::int32_t i = 0; i < count; ++i) all.push_back(text_of(texts[i]));
        std::string why;
        const rti_status status = model->worker->save_prompts(std::move(all), path, why);
        if (status < 0) throw Failure{status, why};
        return status;
    });
}

void rti_model_destroy(rti_model** model) {
    if (!model) return;
    delete *model;
    *model = nullptr;
}

rti_status rti_session_create(rti_model* model, const rti_session_desc* desc, rti_session** out) {
    return guard([&]() -> rti_status {
        require(out != nullptr, "session_create: expected out, got NULL");
        *out = nullptr;
        require(desc != nullptr, "session_create: expected desc, got NULL");
        const rti_session_desc d = read(*desc);
        check_version(d.abi_version, "session");
        auto maps = std::make_pair(person_of(d.actor), person_of(d.reactor ? d.reactor : d.actor));
        share_ground(*maps.first.map, *maps.second.map);
        SessionConfig config = config_of(d, *maps.second.map);
        static std::atomic<std::uint64_t> next{1};
        const auto handle =
            std::make_shared<rti_session>(next.fetch_add(1), std::move(maps.first), std::move(maps.second), std::move(config));
        if (model) {
            handle->worker = model->worker;
            handle->worker->add({handle, &handle->core});
        }
        handle->self = handle;
        *out = handle.get();
        return RTI_OK;
    });
}

rti_status rti_session_warmup(rti_session* session, double timeout_s) {
    return guard([&]() -> rti_status {
        require(session != nullptr, "warmup: expected a session, got NULL");
        require(session->worker != nullptr, "warmup: expected a session with a model, got one without; create it with a model");
        std::string why;
        const rti_status status = session->worker->wait_open(session->core, timeout_s, &why);
        if (status < 0) throw Failure{status, why};
        return status;
    });
}

rti_status rti_session_set_prompt(rti_session* session, const char* text) {
    return guard([&]() -> rti_status {
        require(session != nullptr, "set_prompt: expected a session, got NULL");
        session->core.set_prompt(text_of(text));
        return RTI_OK;
    });
}

rti_status rti_session_set_flags(rti_session* session, uint32_t flags) {
    return guard([&]() -> rti_status {
        require(session != nullptr, "set_flags: expected a session, got NULL");
        check_flags(flags);
        session->core.set_flags(flags);
        return RTI_OK;
    });
}

RTI_GATE rti_status rti_session_push_pose(rti_session* session, int32_t person, double time_s, const rti_pose* pose) {
    if (!session || !pose || (person != RTI_ACTOR && person != RTI_REACTOR)) return RTI_E_ARGUMENT;
    if (pose->struct_size < sizeof(rti_pose)) return RTI_E_VERSION;
    return pose->rotations ? session->core.push(person, time_s, *pose) : RTI_E_ARGUMENT;
}

rti_status rti_session_ready(const rti_session* session) {
    if (!session) return RTI_E_ARGUMENT;
    return session->core.ready() ? RTI_OK : RTI_NOT_READY;
}

RTI_GATE rti_status rti_session_pull_pose(rti_session* session, double time_s, rti_pose* out, rti_pull_info* info) {
    if (!session || !out || !out->rotations || out->joint_count != session->core.shown_joints()) return RTI_E_ARGUMENT;
    if (out->struct_size < sizeof(rti_pose) || (info && info->struct_size < sizeof(std::uint32_t))) return RTI_E_VERSION;
    return session->core.pull(time_s, *out, info);
}

rti_status rti_session_stats(const rti_session* session, rti_stats* out) {
    if (!session || !out) return RTI_E_ARGUMENT;
    if (out->struct_size < sizeof(std::uint32_t)) return RTI_E_VERSION;
    session->core.stats(*out);
    return RTI_OK;
}

size_t rti_session_last_error(const rti_session* session, char* text, size_t capacity) {
    std::size_t length = 0;
    guard([&]() -> rti_status {
        require(session != nullptr, "session_last_error: expected a session, got NULL");
        length = copy_text(session->core.last_error(), text, capacity);
        return RTI_OK;
    });
    return length;
}

int32_t rti_session_joint_count(const rti_session* session, int32_t person) {
    if (!session || (person != RTI_ACTOR && person != RTI_REACTOR)) return RTI_E_ARGUMENT;
    return session->core.person(person).map->joints();
}

const char* rti_session_joint_name(const rti_session* session, int32_t person, int32_t joint) {
    if (joint < 0 || joint >= rti_session_joint_count(session, person)) return nullptr;
    return session->core.person(person).names[static_cast<std::size_t>(joint)].c_str();
}

rti_status rti_session_reset(rti_session* session) {
    if (!session) return RTI_E_ARGUMENT;
    session->core.reset();
    return RTI_OK;
}

void rti_session_destroy(rti_session** session) {
    if (!session || !*session) return;
    // In this order they go: the session, then perhaps the last holder of the model.
    const std::shared_ptr<Worker> worker = std::move((*session)->worker);
    const std::shared_ptr<rti_session> self = std::move((*session)->self);
    if (worker) worker->remove(self->core.id());
    *session = nullptr;
}

}  // extern "C"
