// The Python host: an interpreter (the process' own, or one that is started here) and rtinteract.worker in it.
#include <pybind11/embed.h>
#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <condition_variable>
#include <cstdlib>
#include <cstring>
#include <mutex>

#include "../include/rtinteract.h"
#include "../src/planner.h"

namespace py = pybind11;
using rti::Hop;

namespace {

// Threads inside Python. A process that ends closes the gate: nobody enters any more, and whoever is inside is waited for.
class Gate {
public:
    bool enter() {
        const std::lock_guard<std::mutex> lock(mutex_);
        inside_ += closed_ ? 0 : 1;
        return !closed_;
    }
    void leave() {
        const std::lock_guard<std::mutex> lock(mutex_);
        if (--inside_ == 0) empty_.notify_all();
    }
    void close() {
        std::unique_lock<std::mutex> lock(mutex_);
        closed_ = true;
        empty_.wait(lock, [this] { return inside_ == 0; });
    }

private:
    std::mutex mutex_;
    std::condition_variable empty_;
    int inside_ = 0;
    bool closed_ = false;
};

// Never destroyed: threads may come to it while the process ends.
Gate& gate() {
    static Gate& one = *new Gate;
    return one;
}

// Through the gate and with the interpreter's lock, as long as it lives.
class Inside {
public:
    Inside() : open_(gate().enter()) {
        if (open_) state_ = PyGILState_Ensure();
    }
    ~Inside() {
        if (!open_) return;
        PyGILState_Release(state_);
        gate().leave();
    }
    Inside(const Inside&) = delete;
    Inside& operator=(const Inside&) = delete;
    explicit operator bool() const { return open_; }

private:
    bool open_;
    PyGILState_STATE state_{};
};

// Start an interpreter in the environment of `executable`, unless one runs.
bool start(const std::string& executable, std::string& why) {
    static std::mutex mutex;
    const std::lock_guard<std::mutex> lock(mutex);
    if (Py_IsInitialized()) return true;
    PyConfig config;
    PyConfig_InitPythonConfig(&config);
    config.install_signal_handlers = 0;
    config.parse_argv = 0;
    PyStatus status = PyStatus_Ok();
    if (!executable.empty()) status = PyConfig_SetBytesString(&config, &config.program_name, executable.c_str());
    if (!PyStatus_Exception(status)) status = Py_InitializeFromConfig(&config);
    PyConfig_Clear(&config);
    if (PyStatus_Exception(status)) {
        why = std::string("python: expected an interpreter that starts, got ") + (status.err_msg ? status.err_msg : "none") +
              "; give rti_model_desc.python_executable of an environment with rtinteract";
        return false;
    }
    PyEval_SaveThread();
    return true;
}

// Both ways in which a process with Python ends.
void close_at_exit() {
    static bool done = false;
    if (done) return;
    done = true;
    py::module_::import("atexit").attr("register")(py::cpp_function([] {
        const py::gil_scoped_release release;
        gate().close();
    }));
    // After the libraries of the model, so that it runs before they go.
    std::atexit([] { gate().close(); });
}

static_assert(sizeof(rti::ModelPose) == 91 * sizeof(float), "the worker reads a pose as root [3] and rotations [22][4]");

// Poses [count, 91] as Python sees them: a view, which serves for the time of the call.
py::array view(const rti::ModelPose* poses, int count) {
    return py::array(py::dtype::of<float>(), {static_cast<py::ssize_t>(count), py::ssize_t{91}},
                     {static_cast<py::ssize_t>(sizeof(rti::ModelPose)), static_cast<py::ssize_t>(sizeof(float))}, poses, py::none());
}

class PythonPlanner : public rti::Planner {
public:
    explicit PythonPlanner(const rti::ModelOptions& options) : options_(options) {}

    ~PythonPlanner() override {
        const Inside inside;
        if (inside) host_ = py::object();
        else host_.release();
    }

    std::int32_t load(std::string& why) noexcept override {
        if (!start(options_.python_executable, why)) return RTI_E_PYTHON;
        return guarded(why, RTI_E_PYTHON, [this] {
            const py::object worker = py::module_::import("rtinteract.worker");
            close_at_exit();
            host_ = worker.attr("Host")(options_.path, py::bytes(options_.bytes), options_.device, options_.precision,
                                        options_.threads, options_.vram_limit, options_.prompt_bank);
            options_.bytes.clear();
            return RTI_OK;
        });
    }

    std::int32_t open(std::uint64_t session, const rti::Settings& s, std::string& why) noexcept override {
        return guarded(why, RTI_E_PLANNER, [&] {
            return host_.attr("open")(session, s.seed, s.window, s.horizon, s.hop, s.iterations, s.prompt, s.contact)
                .cast<std::int32_t>();
        });
    }

    void close(std::uint64_t session) noexcept override {
        std::string why;
        guarded(why, RTI_E_PLANNER, [&] {
            host_.attr("close")(session);
            return RTI_OK;
        });
    }

    void hop(Hop* const* hops, std::size_t count) noexcept override {
        std::string why;
        const std::int32_t status = guarded(why, RTI_E_PLANNER, [&] {
            py::list asked;
            for (std::size_t i = 0; i < count; ++i) {
                const Hop& h = *hops[i];
                asked.append(py::make_tuple(h.session, view(h.actor, h.frames), h.placed ? py::object(view(h.placed, 1)) : py::none(),
                                            h.fresh, h.prompt ? py::object(py::str(*h.prompt)) : py::none(), h.contact));
            }
            const py::list made = host_.attr("hop")(asked);
            for (std::size_t i = 0; i < count; ++i) take(made[i], *hops[i]);
            return RTI_OK;
        });
        for (std::size_t i = 0; status != RTI_OK && i < count; ++i) {
            hops[i]->planned = 0;
            hops[i]->error = why;
        }
    }

    std::int32_t save_prompts(const std::vector<std::string>& texts, const std::string& path, std::string& why) noexcept override {
        return guarded(why, RTI_E_PLANNER, [&] {
            host_.attr("save_prompts")(texts, path);
            return RTI_OK;
        });
    }

private:
    // One session's answer: poses [H, 91], or why there are none.
    static void take(const py::object& made, Hop& hop) {
        if (py::isinstance<py::str>(made)) {
            hop.error = made.cast<std::string>();
            return;
        }
        const auto poses = py::array_t<float, py::array::c_style | py::array::forcecast>::ensure(made);
        if (!poses || poses.ndim() != 2 || poses.shape(1) != 91 || poses.shape(0) < 1) {
            PyErr_Clear();
            hop.error = "planner: expected poses [H, 91], got another shape";
            return;
        }
        hop.planned = static_cast<int>(std::min<py::ssize_t>(poses.shape(0), rti::kMaxHorizon));
        std::memcpy(static_cast<void*>(hop.plan), poses.data(), static_cast<std::size_t>(hop.planned) * sizeof(rti::ModelPose));
    }

    template <class Body>
    std::int32_t guarded(std::string& why, std::int32_t failure, Body body) noexcept {
        const Inside inside;
        if (!inside) {
            why = "python: the interpreter is shutting down";
            return failure;
        }
        try {
            return body();
        } catch (const std::exception& error) {
            why = error.what();
        } catch (...) {
            why = "python: an unknown exception";
        }
        return failure;
    }

    rti::ModelOptions options_;
    py::object host_;
};

}  // namespace

extern "C" RTI_API rti::Planner* rti_make_python_planner(const rti::ModelOptions& options) { return new PythonPlanner(options); }
