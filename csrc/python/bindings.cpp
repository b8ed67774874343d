// rtinteract._native: the C ABI for Python. Arrays of float32 in C order are read and written where they lie.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <memory>
#include <optional>
#include <string>

#include "../include/rtinteract.h"

namespace py = pybind11;
using Floats = py::array_t<float, py::array::c_style | py::array::forcecast>;

namespace {

std::string last_error() {
    std::string text(rti_last_error(nullptr, 0), '\0');
    rti_last_error(text.data(), text.size() + 1);
    return text;
}

rti_status checked(rti_status status) {
    if (status < 0) throw py::value_error(std::string(rti_status_name(status)) + ": " + last_error());
    return status;
}

const char* text_of(const std::optional<std::string>& text) { return text ? text->c_str() : nullptr; }

class Model {
public:
    Model(std::optional<std::string> path, std::optional<py::bytes> data, const std::string& device, const std::string& precision,
          int threads, std::uint64_t vram_limit, std::optional<std::string> prompt_bank) {
        rti_model_desc desc = RTI_MODEL_DESC_INIT;
        desc.path = text_of(path);
        const std::string bytes = data ? std::string(*data) : std::string();
        desc.data = data ? bytes.data() : nullptr;
        desc.data_size = bytes.size();
        desc.device = device.c_str();
        desc.precision = precision.c_str();
        desc.threads = threads;
        desc.vram_limit = vram_limit;
        desc.prompt_bank = text_of(prompt_bank);
        const py::gil_scoped_release release;
        checked(rti_model_load(&desc, &handle_));
    }
    ~Model() {
        // The worker may wait for the interpreter's lock in order to end.
        const py::gil_scoped_release release;
        rti_model_destroy(&handle_);
    }
    Model(const Model&) = delete;
    Model& operator=(const Model&) = delete;

    bool wait(double timeout_s) const { return checked(rti_model_wait(handle_, timeout_s)) == RTI_OK; }
    void save_prompts(const std::vector<std::string>& texts, const std::string& path) const {
        std::vector<const char*> pointers;
        for (const std::string& text : texts) pointers.push_back(text.c_str());
        checked(rti_model_save_prompts(handle_, pointers.data(), static_cast<int32_t>(pointers.size()), path.c_str()));
    }
    rti_model* handle() const { return handle_; }

private:
    rti_model* handle_ = nullptr;
};

struct Options {
    std::string actor = "smpl22", reactor = "smpl22";
    int axes = RTI_AXES_RTINTERACT;
};

class Session {
public:
    Session(const Model* model, const Options& who, std::optional<std::string> prompt, rti_session_desc desc) {
        rti_skeleton_desc actor = RTI_SKELETON_DESC_INIT, reactor = RTI_SKELETON_DESC_INIT;
        actor.preset = who.actor.c_str();
        reactor.preset = who.reactor.c_str();
        actor.axes = reactor.axes = who.axes;
        desc.actor = &actor;
        desc.reactor = &reactor;
        desc.prompt = text_of(prompt);
        const py::gil_scoped_release release;
        checked(rti_session_create(model ? model->handle() : nullptr, &desc, &handle_));
        joints_ = rti_session_joint_count(handle_, RTI_REACTOR);
    }
    ~Session() {
        const py::gil_scoped_release release;
        rti_session_destroy(&handle_);
    }
    Session(const Session&) = delete;
    Session& operator=(const Session&) = delete;

    bool warmup(double timeout_s) const { return checked(rti_session_warmup(handle_, timeout_s)) == RTI_OK; }
    void set_prompt(const std::optional<std::string>& text) const { checked(rti_session_set_prompt(handle_, text_of(text))); }
    bool ready() const { return rti_session_ready(handle_) == RTI_OK; }
    void reset() const { rti_session_reset(handle_); }

    std::string push(double time_s, const Floats& root, const Floats& rotations, int person) const {
        if (root.size() != 3 || rotations.ndim() != 2 || rotations.shape(1) != 4)
            throw py::value_error("push: expected root [3] and rotations [J, 4], got other shapes");
        rti_pose pose = RTI_POSE_INIT;
        pose.joint_count = static_cast<int32_t>(rotations.shape(0));
        std::copy_n(root.data(), 3, pose.root);
        // push_pose reads only; the struct serves pull_pose too.
        pose.rotations = const_cast<float*>(rotations.data());
        const py::gil_scoped_release release;
        return rti_status_name(rti_session_push_pose(handle_, person, time_s, &pose));
    }

    py::tuple pull(double time_s, std::optional<py::array_t<float>> out) const {
        py::array_t<float> rotations = out ? *out : py::array_t<float>({static_cast<py::ssize_t>(joints_), py::ssize_t{4}});
        if (rotations.ndim() != 2 || rotations.shape(0) != joints_ || rotations.shape(1) != 4 || !rotations.writeable() ||
            !(rotations.flags() & py::array::c_style))
            throw py::value_error("pull: expected out as writeable float32 [" + std::to_string(joints_) + ", 4] in C order");
        rti_pose pose = RTI_POSE_INIT;
        pose.joint_count = joints_;
        pose.rotations = rotations.mutable_data();
        rti_pull_info info = RTI_PULL_INFO_INIT;
        rti_status status;
        {
            const py::gil_scoped_release release;
            status = rti_session_pull_pose(handle_, time_s, &pose, &info);
        }
        const py::dict told;
        told["status"] = rti_status_name(status);
        told["state"] = info.state;
        told["plan"] = info.plan;
        told["plan_age_s"] = info.plan_age_s;
        told["root_delta"] = py::array_t<float>(3, info.root_delta);
        told["root_turn"] = py::array_t<float>(4, info.root_turn);
        told["foot_slide"] = info.foot_slide;
        told["penetration"] = info.penetration;
        return py::make_tuple(py::array_t<float>(3, pose.root), rotations, told);
    }

    py::dict stats() const {
        rti_stats s = RTI_STATS_INIT;
        checked(rti_session_stats(handle_, &s));
        const auto three = [](const double* p) { return py::make_tuple(p[0], p[1], p[2]); };
        using py::literals::operator""_a;
        return py::dict("state"_a = s.state, "pushed"_a = s.pushed, "pulled"_a = s.pulled, "rejected_poses"_a = s.rejected_poses,
                        "rejected_times"_a = s.rejected_times, "lost_poses"_a = s.lost_poses, "lost_frames"_a = s.lost_frames,
                        "time_jumps"_a = s.time_jumps, "hops"_a = s.hops, "failed_hops"_a = s.failed_hops, "late"_a = s.late,
                        "fallbacks"_a = s.fallbacks, "push_us"_a = three(s.push_us), "pull_us"_a = three(s.pull_us),
                        "hop_us"_a = three(s.hop_us), "reaction_us"_a = three(s.reaction_us));
    }

    std::string error() const {
        std::string text(rti_session_last_error(handle_, nullptr, 0), '\0');
        rti_session_last_error(handle_, text.data(), text.size() + 1);
        return text;
    }

    std::vector<std::string> joints(int person) const {
        std::vector<std::string> names;
        for (int32_t j = 0; j < rti_session_joint_count(handle_, person); ++j) names.push_back(rti_session_joint_name(handle_, person, j));
        return names;
    }

private:
    rti_session* handle_ = nullptr;
    int32_t joints_ = 0;
};

std::unique_ptr<Session> make_session(const Model* model, const std::string& actor, const std::string& reactor, int axes,
                                      std::optional<std::string> prompt, std::uint64_t seed, int window, int horizon, int hop,
                                      int iterations, std::uint32_t flags) {
    rti_session_desc desc = RTI_SESSION_DESC_INIT;
    desc.seed = seed;
    desc.window = window;
    desc.horizon = horizon;
    desc.hop = hop;
    desc.iterations = iterations;
    desc.flags = flags;
    return std::make_unique<Session>(model, Options{actor, reactor, axes}, std::move(prompt), desc);
}

}  // namespace

PYBIND11_MODULE(_native, m) {
    m.doc() = "The engine's session core (rtinteract.h) for Python. Times in seconds; poses in the session's axes and units.";
    m.attr("ABI_VERSION") = rti_abi_version();
    m.attr("ACTOR") = static_cast<int>(RTI_ACTOR);
    m.attr("REACTOR") = static_cast<int>(RTI_REACTOR);
    const auto released = py::call_guard<py::gil_scoped_release>();
    py::class_<Model>(m, "Model", "A model on a worker thread; loads in the background.")
        .def(py::init<std::optional<std::string>, std::optional<py::bytes>, const std::string&, const std::string&, int, std::uint64_t,
                      std::optional<std::string>>(),
             py::kw_only(), py::arg("path") = py::none(), py::arg("data") = py::none(), py::arg("device") = "auto",
             py::arg("precision") = "auto", py::arg("threads") = 0, py::arg("vram_limit") = 0, py::arg("prompt_bank") = py::none())
        .def("wait", &Model::wait, py::arg("timeout_s"), released, "Whether it is loaded; ValueError where that failed.")
        .def("save_prompts", &Model::save_prompts, py::arg("texts"), py::arg("path"), released, "Write a prompt bank.");
    py::class_<Session>(m, "Session", "One pair. push from one thread, pull from one thread.")
        .def(py::init(&make_session), py::arg("model"), py::kw_only(), py::arg("actor") = "smpl22", py::arg("reactor") = "smpl22",
             py::arg("axes") = static_cast<int>(RTI_AXES_RTINTERACT), py::arg("prompt") = py::none(), py::arg("seed") = 0,
             py::arg("window") = 0, py::arg("horizon") = 0, py::arg("hop") = 0, py::arg("iterations") = 0,
             py::arg("flags") = static_cast<std::uint32_t>(RTI_FLAG_FOOT_LOCK))
        .def("warmup", &Session::warmup, py::arg("timeout_s"), released, "Whether a hop was tried; ValueError where that failed.")
        .def("set_prompt", &Session::set_prompt, py::arg("text"), released)
        .def("push", &Session::push, py::arg("time_s"), py::arg("root"), py::arg("rotations"), py::arg("person") = 0,
             "root [3], rotations [J, 4] wxyz; the name of the status.")
        .def("pull", &Session::pull, py::arg("time_s"), py::arg("out") = py::none(),
             "(root [3], rotations [J, 4], information); rotations are written to ``out`` where it is given.")
        .def("ready", &Session::ready)
        .def("reset", &Session::reset)
        .def("stats", &Session::stats, "Counters, and (p50, p95, p99) in microseconds.")
        .def("error", &Session::error, "The newest fault, or an empty text.")
        .def("joints", &Session::joints, py::arg("person") = static_cast<int>(RTI_REACTOR), "Joint names in the order of poses.");
}
