// Hostile bytes through the entry points that eat them: models from memory and skeleton descriptions. Runs for the seconds given;
// what it looks for are the sanitizers' findings, so every status is fine that says why.
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "../../csrc/include/rtinteract.h"

namespace {

std::mt19937 noise;

int below(int n) { return static_cast<int>(noise() % static_cast<unsigned>(n)); }

float number() {
    const float all[] = {0, 1, -1, 0.1f, 1e-30f, 1e30f, std::numeric_limits<float>::infinity(),
                         std::numeric_limits<float>::quiet_NaN()};
    return below(3) ? static_cast<float>(below(2000) - 1000) * 1e-3f : all[below(8)];
}

void say_why(rti_status status) {
    char text[64];
    if (status < 0 && rti_last_error(text, sizeof text) == 0) std::abort();
}

void model() {
    std::string bytes = std::string("\x10\0\0\0\0\0\0\0{\"a\":1}         ", 24);
    bytes.resize(static_cast<std::size_t>(below(40)), 'x');
    // An intact head would start a worker: leave one of its bytes wrong.
    for (char& c : bytes)
        if (!below(4)) c = static_cast<char>(below(256));
    if (bytes.size() > 8) bytes[8] = '[';
    rti_model_desc desc = RTI_MODEL_DESC_INIT;
    desc.data = bytes.data();
    desc.data_size = bytes.size();
    rti_model* made = nullptr;
    const rti_status status = rti_model_load(&desc, &made);
    if (status != RTI_E_FORMAT || made) std::abort();
    say_why(status);
}

// A preset's own joints, spoiled here and there, so that many descriptions get far.
void skeleton(const std::vector<std::string>& known) {
    const int joints = below(4) ? static_cast<int>(known.size()) : below(70) - 2;
    const auto n = static_cast<std::size_t>(joints < 0 ? 0 : joints);
    std::vector<std::string> names(n);
    std::vector<const char*> pointers(n);
    std::vector<std::int32_t> parents(n);
    std::vector<float> places(3 * n), turns(4 * n);
    static constexpr std::int32_t kParents[] = {-1, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 12, 13, 14, 16, 17, 18, 19};
    for (std::size_t j = 0; j < n; ++j) {
        names[j] = known[j % known.size()];
        if (!below(40)) names[j].resize(static_cast<std::size_t>(below(300)), static_cast<char>(1 + below(255)));
        pointers[j] = below(200) ? names[j].c_str() : nullptr;
        parents[j] = below(100) ? kParents[j % 22] : below(80) - 10;
        for (std::size_t k = 0; k < 3; ++k) places[3 * j + k] = below(60) ? (k == 1 ? 0.1f : 0.02f) : number();
        for (std::size_t k = 0; k < 4; ++k) turns[4 * j + k] = below(400) ? (k == 0 ? 1.0f : 0.0f) : number();
    }
    rti_skeleton_desc desc = RTI_SKELETON_DESC_INIT;
    desc.preset = nullptr;
    desc.axes = below(30) ? below(5) : below(100) - 50;
    desc.joint_count = joints;
    desc.names = below(100) ? pointers.data() : nullptr;
    desc.parents = below(100) ? parents.data() : nullptr;
    desc.rest_translations = below(100) ? places.data() : nullptr;
    desc.rest_rotations = below(2) ? turns.data() : nullptr;
    if (!below(10)) desc.basis[below(9)] = number();
    if (!below(10)) desc.metres_per_unit = number();
    rti_session_desc session = RTI_SESSION_DESC_INIT;
    session.actor = &desc;
    session.flags = static_cast<std::uint32_t>(below(32));
    rti_session* made = nullptr;
    const rti_status status = rti_session_create(nullptr, &session, &made);
    say_why(status);
    if (!made) return;
    std::vector<float> pose(4 * n);
    for (float& x : pose) x = number();
    rti_pose in = RTI_POSE_INIT;
    in.joint_count = joints;
    in.rotations = pose.data();
    for (int i = 0; i < 4; ++i) {
        for (std::size_t j = 0; j < n && i > 1; ++j) pose[4 * j] = 1, pose[4 * j + 1] = pose[4 * j + 2] = pose[4 * j + 3] = 0;
        rti_session_push_pose(made, below(2), i, &in);
        if (rti_session_pull_pose(made, i, &in, nullptr) < 0) std::abort();
    }
    rti_session_destroy(&made);
}

}  // namespace

int main(int argc, char** argv) {
    const double seconds = argc > 1 ? std::atof(argv[1]) : 1;
    noise.seed(argc > 2 ? static_cast<unsigned>(std::atoi(argv[2])) : 0);
    const char* unknown = rti_status_name(-99);
    rti_session_desc desc = RTI_SESSION_DESC_INIT;
    rti_session* plain = nullptr;
    if (rti_session_create(nullptr, &desc, &plain) != RTI_OK || !unknown) return 1;
    std::vector<std::string> known;
    for (int j = 0; j < rti_session_joint_count(plain, RTI_ACTOR); ++j) known.push_back(rti_session_joint_name(plain, RTI_ACTOR, j));
    rti_session_destroy(&plain);
    long rounds = 0;
    const auto end = std::chrono::steady_clock::now() + std::chrono::duration<double>(seconds);
    for (; std::chrono::steady_clock::now() < end; ++rounds) {
        model();
        skeleton(known);
    }
    std::printf("rounds=%ld\n", rounds);
    return 0;
}
