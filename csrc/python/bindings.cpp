// rtinteract._native: the C ABI for Python. Arrays of float32 in C order are read and written where they lie.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <memory>
#include <optional>
#include <string>
#include <variant>
#include <vector>

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

// An engine's own skeleton; holds what rti_skeleton_desc points to.
class Skeleton {
public:
    Skeleton(std::vector<std::string> joints, std::vector<std::int32_t> parents, const Floats& translations,
             const std::optional<Floats>& rotations, int axes, const std::optional<Floats>& basis, float metres_per_unit)
        : joints_(std::move(joints)), parents_(std::move(parents)) {
        const auto n = static_cast<py::ssize_t>(joints_.size());
        const auto shaped = [&](const Floats& a, py::ssize_t rows, py::ssize_t columns, const char* name) {
            if (a.ndim() != 2 || a.shape(0) != rows || a.shape(1) != columns)
                throw py::value_error("skeleton." + std::string(name) + ": expected [" + std::to_string(rows) + ", " +
                                      std::to_string(columns) + "], got " + std::string(py::str(a.attr("shape"))) +
                                      "; give a row for each joint");
            return std::vector<float>(a.data(), a.data() + a.size());
        };
        if (parents_.size() != joints_.size())
            throw py::value_error("skeleton.parents: expected one for each of " + std::to_string(n) + " joints, got " +
                                  std::to_string(parents_.size()) + "; -1 is the root's");
        translations_ = shaped(translations, n, 3, "translations");
        if (rotations) rotations_ = shaped(*rotations, n, 4, "rotations");
        desc_.preset = nullptr;
        desc_.joint_count = static_cast<std::int32_t>(n);
        desc_.axes = basis ? static_cast<int>(RTI_AXES_CUSTOM) : axes;
        desc_.metres_per_unit = metres_per_unit;
        if (basis) {
            const std::vector<float> rows = shaped(*basis, 3, 3, "basis");
            std::copy(rows.begin(), rows.end(), desc_.basis);
        }
    }

    // Valid as long as this object stays where it is.
    rti_skeleton_desc desc() {
        names_.clear();
        for (const std::string& joint : joints_) names_.push_back(joint.c_str());
        desc_.names = names_.data();
        desc_.parents = parents_.data();
        desc_.rest_translations = translations_.data();
        desc_.rest_rotations = rotations_.empty() ? nullptr : rotations_.data();
        return desc_;
    }

private:
    std::vector<std::string> joints_;
    std::vector<const char*> names_;
    std::vector<std::int32_t> parents_;
    std::vector<float> translations_, rotations_;
    rti_skeleton_desc desc_ = RTI_SKELETON_DESC_INIT;
};

// A preset's name, or a skeleton with its own axes.
using Who = std::variant<std::string, Skeleton>;

rti_skeleton_desc desc_of(Who& who, int axes) {
    if (Skeleton* own = std::get_if<Skeleton>(&who)) return own->desc();
    rti_skeleton_desc desc = RTI_SKELETON_DESC_INIT;
    desc.preset = std::get<std::string>(who).c_str();
    desc.axes = axes;
    return desc;
}

class Session {
public:
    Session(const Model* model, const rti_skeleton_desc& actor, const rti_skeleton_desc& reactor,
            const std::optional<std::string>& prompt, rti_session_desc desc) {
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
    void set_flags(std::uint32_t flags) const { checked(rti_session_set_flags(handle_, flags)); }

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

std::unique_ptr<Session> make_session(const Model* model, Who actor, Who reactor, int axes, std::optional<std::string> prompt,
                                      std::uint64_t seed, int window, int horizon, int hop, int iterations, std::uint32_t flags,
                                      float foot_lock, float push_out, float hands) {
    rti_session_desc desc = RTI_SESSION_DESC_INIT;
    desc.seed = seed;
    desc.window = window;
    desc.horizon = horizon;
    desc.hop = hop;
    desc.iterations = iterations;
    desc.flags = flags;
    desc.foot_lock = foot_lock;
    desc.push_out = push_out;
    desc.hands = hands;
    return std::make_unique<Session>(model, desc_of(actor, axes), desc_of(reactor, axes), prompt, desc);
}

}  // namespace

PYBIND11_MODULE(_native, m) {
    m.doc() = "The engine's session core (rtinteract.h) for Python. Times in seconds; poses in the session's axes and units.";
    m.attr("ABI_VERSION") = rti_abi_version();
    m.attr("ACTOR") = static_cast<int>(RTI_ACTOR);
    m.attr("REACTOR") = static_cast<int>(RTI_REACTOR);
    m.attr("FOOT_LOCK") = static_cast<int>(RTI_FLAG_FOOT_LOCK);
    m.attr("PUSH_OUT") = static_cast<int>(RTI_FLAG_PUSH_OUT);
    m.attr("ROOT_MOTION") = static_cast<int>(RTI_FLAG_ROOT_MOTION);
    m.attr("HANDS") = static_cast<int>(RTI_FLAG_HANDS);
    m.attr("CONTACT") = static_cast<int>(RTI_FLAG_CONTACT);
    m.attr("BUILD") = rti_build_info();
    const auto released = py::call_guard<py::gil_scoped_release>();
    py::class_<Model>(m, "Model", "A model on a worker thread; loads in the background.")
        .def(py::init<std::optional<std::string>, std::optional<py::bytes>, const std::string&, const std::string&, int, std::uint64_t,
                      std::optional<std::string>>(),
             py::kw_only(), py::arg("path") = py::none(), py::arg("data") = py::none(), py::arg("device") = "auto",
             py::arg("precision") = "auto", py::arg("threads") = 0, py::arg("vram_limit") = 0, py::arg("prompt_bank") = py::none())
        .def("wait", &Model::wait, py::arg("timeout_s"), released, "Whether it is loaded; ValueError where that failed.")
        .def("save_prompts", &Model::save_prompts, py::arg("texts"), py::arg("path"), released, "Write a prompt bank.");
    py::class_<Skeleton>(m, "Skeleton",
                         "An engine's own skeleton: joint names, parents (-1: the root), its T-pose as translations [J, 3] and rotations "
                         "[J, 4] wxyz in the parents' frames. axes: 0 rtinteract, 1 unreal, 2 unity, 3 godot; or basis [3, 3] with "
                         "metres_per_unit, rows taking the engine's vectors to +X left, +Y up, +Z forward.")
        .def(py::init<std::vector<std::string>, std::vector<std::int32_t>, const Floats&, const std::optional<Floats>&, int,
                      const std::optional<Floats>&, float>(),
             py::arg("joints"), py::arg("parents"), py::arg("translations"), py::arg("rotations") = py::none(), py::kw_only(),
             py::arg("axes") = static_cast<int>(RTI_AXES_RTINTERACT), py::arg("basis") = py::none(), py::arg("metres_per_unit") = 1.0f);
    py::class_<Session>(m, "Session",
                        "One pair. actor, reactor: a preset's name, in the session's axes, or a Skeleton. push from one thread, pull "
                        "from one thread.")
        .def(py::init(&make_session), py::arg("model"), py::kw_only(), py::arg("actor") = Who("smpl22"), py::arg("reactor") = Who("smpl22"),
             py::arg("axes") = static_cast<int>(RTI_AXES_RTINTERACT), py::arg("prompt") = py::none(), py::arg("seed") = 0,
             py::arg("window") = 0, py::arg("horizon") = 0, py::arg("hop") = 0, py::arg("iterations") = 0,
             py::arg("flags") = static_cast<std::uint32_t>(RTI_FLAG_FOOT_LOCK), py::arg("foot_lock") = 1.0f,
             py::arg("push_out") = 1.0f, py::arg("hands") = 1.0f)
        .def("warmup", &Session::warmup, py::arg("timeout_s"), released, "Whether a hop was tried; ValueError where that failed.")
        .def("set_prompt", &Session::set_prompt, py::arg("text"), released)
        .def("push", &Session::push, py::arg("time_s"), py::arg("root"), py::arg("rotations"), py::arg("person") = 0,
             "root [3], rotations [J, 4] wxyz; the name of the status.")
        .def("pull", &Session::pull, py::arg("time_s"), py::arg("out") = py::none(),
             "(root [3], rotations [J, 4], information); rotations are written to ``out`` where it is given.")
        .def("set_flags", &Session::set_flags, py::arg("flags"), "FOOT_LOCK, PUSH_OUT, ROOT_MOTION, HANDS, CONTACT; the others are off.")
        .def("ready", &Session::ready)
        .def("reset", &Session::reset)
        .def("stats", &Session::stats, "Counters, and (p50, p95, p99) in microseconds.")
        .def("error", &Session::error, "The newest fault, or an empty text.")
        .def("joints", &Session::joints, py::arg("person") = static_cast<int>(RTI_REACTOR), "Joint names in the order of poses.");
}
