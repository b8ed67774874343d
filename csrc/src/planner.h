// What stands between the session core and whatever makes plans. Nothing above this file knows about Python.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "pose.h"

namespace rti {

constexpr int kMaxHorizon = 64;
constexpr int kMaxHop = 32;

// What a session asks of the planner; 0 is the planner's default.
struct Settings {
    std::uint64_t seed = 0;
    int window = 0, horizon = 0, hop = 0, iterations = 0;
    std::string prompt;
    bool contact = false;
};

// One session's share of a hop: poses of the average body in, of the same body out. The planner reads the upper part and fills the lower.
struct Hop {
    std::uint64_t session = 0;
    const ModelPose* actor = nullptr;    // the newest `frames` poses of the actor
    int frames = 0;
    const ModelPose* placed = nullptr;   // where the reactor was stood, or null: the planner places it
    bool fresh = false;                  // forget what came before: the scene begins with these frames
    bool contact = false;                // bring the reactor's hands to where the two are about to touch
    const std::string* prompt = nullptr; // what the two do from now on; null while it is as before

    int planned = 0;                     // poses written, at most kMaxHorizon; 0 where the hop failed
    ModelPose plan[kMaxHorizon];         // the reactor from the frame after the newest one on
    std::string error;                   // why `planned` is 0
};

// How a model is to be loaded.
struct ModelOptions {
    std::string path, bytes, device = "auto", precision = "auto", prompt_bank, python_executable, python_library;
    int threads = 0;
    std::uint64_t vram_limit = 0;
};

// Called on the worker's thread only, load() first. Nothing throws: a planner may live in another shared object. A status is
// RTI_OK or an error, and `why` then says more.
class Planner {
public:
    virtual ~Planner() = default;
    virtual std::int32_t load(std::string& why) noexcept = 0;
    // A session begins; frames a hop, or an error. Sessions are named by numbers that are never used twice.
    virtual std::int32_t open(std::uint64_t session, const Settings& settings, std::string& why) noexcept = 0;
    virtual void close(std::uint64_t session) noexcept = 0;
    virtual void hop(Hop* const* hops, std::size_t count) noexcept = 0;
    virtual std::int32_t save_prompts(const std::vector<std::string>& texts, const std::string& path, std::string& why) noexcept = 0;
};

// A planner that starts Python when it loads, and not before.
std::unique_ptr<Planner> make_python_planner(ModelOptions options);

}  // namespace rti
