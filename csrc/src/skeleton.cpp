#include "skeleton.h"

#include <cmath>
#include <cstddef>
#include <stdexcept>

#include "skeleton_tables.h"

namespace rti {
namespace {

template <class Table>
const auto& named(const Table& table, const std::string& name, const std::string& what) {
    std::string all;
    for (const auto& row : table) {
        if (name == row.name) return row;
        all += (all.empty() ? "" : ", ") + std::string(row.name);
    }
    throw std::invalid_argument(what + ": expected one of " + all + ", got \"" + name + "\"; choose one, or describe your own");
}

}  // namespace

Basis Basis::preset(const std::string& name) {
    const tables::AxesRow& row = named(tables::axes, name, "axes");
    Basis basis;
    for (std::size_t k = 0; k < 9; ++k) basis.to_model[k] = row.to_model[k];
    basis.metres_per_unit = row.metres_per_unit;
    return basis;
}

void Basis::check() const {
    const float* m = to_model;
    bool ok = true;
    for (int a = 0; a < 3; ++a) {
        for (int b = 0; b <= a; ++b) {
            const float* x = m + 3 * a;
            const float* y = m + 3 * b;
            ok &= std::fabs(x[0] * y[0] + x[1] * y[1] + x[2] * y[2] - (a == b ? 1.0f : 0.0f)) < 1e-4f;
        }
    }
    if (!ok) {
        throw std::invalid_argument("axes: expected three unit rows square to each other, got a matrix that stretches or skews; "
                                    "give the directions alone and the scale as metres per unit");
    }
    if (!(metres_per_unit > 0) || !std::isfinite(metres_per_unit)) {
        throw std::invalid_argument("axes: expected metres per unit above 0, got " + std::to_string(metres_per_unit) +
                                    "; centimetres are 0.01");
    }
}

PresetSkeleton::PresetSkeleton(const std::string& name, const Basis& basis) {
    basis.check();
    for (const tables::JointRow& row : named(tables::presets, name, "skeleton preset").joints) {
        names_.push_back(row.name);
        parents_.push_back(row.parent);
        float e[4];
        basis.vector_from_model({row.translation[0], row.translation[1], row.translation[2]}, e);
        translations_.insert(translations_.end(), e, e + 3);
        basis.rotation_from_model({row.rotation[0], row.rotation[1], row.rotation[2], row.rotation[3]}, e);
        rotations_.insert(rotations_.end(), e, e + 4);
    }
}

SkeletonDesc PresetSkeleton::desc() const noexcept {
    return {static_cast<std::int32_t>(names_.size()), names_.data(), parents_.data(), translations_.data(), rotations_.data()};
}

}  // namespace rti
