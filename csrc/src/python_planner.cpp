// The planner that lives in the Python host, a shared object beside this one which is loaded with the first model.
#include "../include/rtinteract.h"
#include "dynlib.h"
#include "planner.h"

#ifndef RTI_PYTHON_LIBRARY
#  define RTI_PYTHON_LIBRARY ""
#endif
#ifndef RTI_PYTHON_EXECUTABLE
#  define RTI_PYTHON_EXECUTABLE ""
#endif

namespace rti {
namespace {

#if defined(_WIN32)
constexpr const char* kHost = "rtinteract_python.dll";
#else
constexpr const char* kHost = "librtinteract_python.so";
#endif

class PythonPlanner : public Planner {
public:
    explicit PythonPlanner(ModelOptions options) : options_(std::move(options)) {
        if (options_.python_library.empty()) options_.python_library = RTI_PYTHON_LIBRARY;
        if (options_.python_executable.empty()) options_.python_executable = RTI_PYTHON_EXECUTABLE;
    }

    std::int32_t load(std::string& why) noexcept override try {
        // A Python process has one already, and a process holds one Python only.
        if (!find_function("", "Py_IsInitialized") && !load_library(options_.python_library, true, why)) {
            why = "python_library: expected a shared libpython, got " + why + "; give rti_model_desc.python_library";
            return RTI_E_PYTHON;
        }
        const std::string host = own_folder() + kHost;
        if (!load_library(host, false, why)) {
            why = "python host: expected it beside the library, got " + why + "; build it with pip install, which needs a C++ compiler";
            return RTI_E_PYTHON;
        }
        const AnyFunction make = find_function(host, "rti_make_python_planner");
        if (!make) {
            why = host + ": expected a host of this version, got another; install library and host together";
            return RTI_E_VERSION;
        }
        inner_.reset(reinterpret_cast<Planner* (*)(const ModelOptions&)>(make)(options_));
        return inner_->load(why);
    } catch (const std::exception& error) {
        why = error.what();
        return RTI_E_INTERNAL;
    }

    std::int32_t open(std::uint64_t session, const Settings& settings, std::string& why) noexcept override {
        return inner_->open(session, settings, why);
    }
    void close(std::uint64_t session) noexcept override { inner_->close(session); }
    void hop(Hop* const* hops, std::size_t count) noexcept override { inner_->hop(hops, count); }
    std::int32_t save_prompts(const std::vector<std::string>& texts, const std::string& path, std::string& why) noexcept override {
        if (inner_) return inner_->save_prompts(texts, path, why);
        why = "save_prompts: expected a loaded model, got one that failed to load";
        return RTI_E_PYTHON;
    }

private:
    ModelOptions options_;
    std::unique_ptr<Planner> inner_;
};

}  // namespace

std::unique_ptr<Planner> make_python_planner(ModelOptions options) { return std::make_unique<PythonPlanner>(std::move(options)); }

}  // namespace rti
