// Retargeting behind plain functions for tests/test_native_retarget.py; counts what is allocated.
#include <atomic>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <new>
#include <string>
#include <vector>

#include "../../csrc/src/jointmap.h"
#include "../../csrc/src/retarget.h"

namespace {
std::atomic<long> allocations{0};
}

void* operator new(std::size_t n) {
    ++allocations;
    if (void* p = std::malloc(n)) return p;
    throw std::bad_alloc();
}
void operator delete(void* p) noexcept { std::free(p); }
void operator delete(void* p, std::size_t) noexcept { std::free(p); }

namespace {

rti::ModelPose pose_of(const float* root, const float* local) {
    rti::ModelPose pose;
    pose.root = {root[0], root[1], root[2]};
    for (int j = 0; j < rti::kJoints; ++j, local += 4) pose.local[j] = {local[0], local[1], local[2], local[3]};
    return pose;
}

template <class F>
auto guarded(char* error, int capacity, F f) -> decltype(f()) {
    try {
        return f();
    } catch (const std::exception& e) {
        std::strncpy(error, e.what(), static_cast<std::size_t>(capacity - 1));
        error[capacity - 1] = 0;
        return {};
    }
}

}  // namespace

extern "C" {

long shim_allocations() { return allocations; }

rti::Retarget* shim_preset(const char* name, const char* axes, char* error, int capacity) {
    return guarded(error, capacity, [&] {
        const rti::Basis basis = rti::Basis::preset(axes);
        return new rti::Retarget(rti::PresetSkeleton(name, basis).desc(), basis);
    });
}

rti::Retarget* shim_create(int joints, const char* const* names, const std::int32_t* parents, const float* translations,
                           const float* rotations, const float* basis, float metres, char* error, int capacity) {
    return guarded(error, capacity, [&] {
        rti::Basis b;
        std::memcpy(b.to_model, basis, sizeof b.to_model);
        b.metres_per_unit = metres;
        return new rti::Retarget({joints, names, parents, translations, rotations}, b);
    });
}

void shim_destroy(rti::Retarget* r) { delete r; }
int shim_joints(const rti::Retarget* r) { return r->joints(); }
float shim_scale(const rti::Retarget* r) { return r->leg_scale(); }
void shim_share_ground(rti::Retarget* a, rti::Retarget* b) { share_ground(*a, *b); }

void shim_to_model(const rti::Retarget* r, int frames, const float* root, const float* local, float* model_root, float* model) {
    const int j = r->joints();
    for (int t = 0; t < frames; ++t) {
        rti::ModelPose pose;
        r->to_model(root + 3 * t, local + 4 * j * t, pose);
        std::memcpy(model_root + 3 * t, &pose.root, sizeof pose.root);
        std::memcpy(model + 88 * t, pose.local, sizeof pose.local);
    }
}

void shim_from_model(const rti::Retarget* r, int frames, const float* model_root, const float* model, float* root, float* local) {
    const int j = r->joints();
    for (int t = 0; t < frames; ++t) r->from_model(pose_of(model_root + 3 * t, model + 88 * t), root + 3 * t, local + 4 * j * t);
}

void shim_reach(const rti::Retarget* r, const rti::Retarget* p, int frames, const float* own_root, const float* own,
                const float* other_root, const float* other, const float* partner_root, const float* partner, const float* root,
                float* local) {
    for (int t = 0; t < frames; ++t) {
        r->reach(pose_of(own_root + 3 * t, own + 88 * t), pose_of(other_root + 3 * t, other + 88 * t), *p, partner_root + 3 * t,
                 partner + 4 * p->joints() * t, root + 3 * t, 1, local + 4 * r->joints() * t);
    }
}

// out: 22 indices; 0 and an error where the names tell too little.
int shim_roles(int joints, const char* const* names, std::int32_t* out, char* error, int capacity) {
    return guarded(error, capacity, [&] {
        const rti::Roles roles = rti::roles_of(std::vector<std::string>(names, names + joints));
        std::memcpy(out, roles.data(), sizeof roles);
        return 1;
    });
}

}  // extern "C"
