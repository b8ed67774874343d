// Products of a chunk of rows with packed weights, and the rows made ready for them. ``Kind`` is of the weights: `Int8`,
// `Bfloat16` or `Float32`.
#pragma once
#include <utility>

#include "model.h"
#include "vector.h"

namespace rti::cpu {

constexpr float kEpsilon = 1e-6f;

// In the kernels every index of a sum is a constant: compilers keep sums in registers only where they see no loop over them.
template <class Kind, size_t... J>
RTI_INLINE void add_row(typename Kind::Sum* sum, const typename Kind::Operand* weights, const uint8_t* row, std::index_sequence<J...>) {
  const auto all = Kind::everywhere(row);
  ((sum[J] = Kind::dot(sum[J], weights[J], all)), ...);
}

template <class Sum, class Emit, size_t... J>
RTI_INLINE void emit_row(int row, const Sum* sum, const Emit& emit, std::index_sequence<J...>) {
  (emit(row, static_cast<int>(J), sum[J]), ...);
}

template <class Kind, int PANEL, class Emit, size_t... I, size_t... J, size_t... ALL>
RTI_INLINE void sums_of(const uint8_t* rows, size_t pitch, const uint8_t* panel, int width, int steps, const Emit& emit,
                        std::index_sequence<I...>, std::index_sequence<J...> across, std::index_sequence<ALL...>) {
  typename Kind::Sum sum[] = {((void)ALL, Kind::nothing())...};
  for (int s = 0; s < steps; ++s, rows += kWord, panel += static_cast<size_t>(width) * kLanes * kWord) {
    const typename Kind::Operand weights[PANEL] = {Kind::weights_at(panel + J * kLanes * kWord)...};
    (add_row<Kind>(sum + I * PANEL, weights, rows + I * pitch, across), ...);
  }
  (emit_row(static_cast<int>(I), sum + I * PANEL, emit, across), ...);
}

// emit(row, vector, sum) for the sums [ROWS, PANEL vectors] of ``steps`` groups: rows ``pitch`` bytes apart, a panel's groups
// ``width`` vectors apart.
template <class Kind, int ROWS, int PANEL, class Emit>
RTI_INLINE void sums(const void* rows, size_t pitch, const uint8_t* panel, int width, int steps, const Emit& emit) {
  sums_of<Kind, PANEL>(static_cast<const uint8_t*>(rows), pitch, panel, width, steps, emit, std::make_index_sequence<ROWS>(),
                       std::make_index_sequence<PANEL>(), std::make_index_sequence<ROWS * PANEL>());
}

template <class Kind, int ROWS, class Store>
inline void tile(const Scratch& scratch, int first, const Linear& linear, int panel, const Store& store) {
  constexpr int vectors = Kind::kLayout.panel / kLanes;
  const int steps = linear.inputs / Kind::kLayout.group;
  const size_t pitch = static_cast<size_t>(steps) * kWord;
  const uint8_t* weights = linear.packed + static_cast<size_t>(panel) * steps * Kind::kLayout.panel * kWord;
  // Through memory, so that what is done with a sum is compiled once and not for each sum of a tile.
  typename Kind::Sum done[ROWS * vectors];
  sums<Kind, ROWS, vectors>(scratch.rows + first * pitch, pitch, weights, vectors, steps,
                            [&](int i, int j, typename Kind::Sum sum) RTI_INLINE_LAMBDA { done[i * vectors + j] = sum; });
  for (int i = 0; i < ROWS; ++i) {
    for (int j = 0; j < vectors; ++j) {
      const int column = panel * Kind::kLayout.panel + j * kLanes;
      if (column < linear.outputs) store(first + i, column, Kind::finish(done[i * vectors + j], scratch, first + i, linear, column));
    }
  }
}

template <int N>
struct Count {
  static constexpr int value = N;
};

// work(Count<n>) for n = ``count``, at least 1 and at most MOST: what is made for each number apart.
template <int MOST, class Work>
RTI_INLINE void counted(int count, const Work& work) {
  if constexpr (MOST > 1) {
    if (count < MOST) return counted<MOST - 1>(count, work);
  }
  work(Count<MOST>());
}

// store(row, column, 16 outputs from that column on) of W x + b for the scratch's first ``count`` rows.
template <class Kind, class Store>
inline void product(const Scratch& scratch, int count, const Linear& linear, const Store& store) {
  const int panels = (linear.outputs + Kind::kLayout.panel - 1) / Kind::kLayout.panel;
  for (int panel = 0; panel < panels; ++panel) {
    for (int first = 0; first < count; first += kTileRows) {
      counted<kTileRows>(count - first, [&](auto rows) { tile<Kind, decltype(rows)::value>(scratch, first, linear, panel, store); });
    }
  }
}

template <class Machine>
struct Spread {
  typename Machine::Floats mean, over_std;
};

template <class Machine>
inline Spread<Machine> spread(const float* x, int width) {
  auto sum = Machine::zero();
  for (int c = 0; c < width; c += kLanes) sum = Machine::add(sum, Machine::load(x + c));
  const auto mean = Machine::all(Machine::sum(sum) / width);
  auto squares = Machine::zero();
  for (int c = 0; c < width; c += kLanes) {
    const auto away = Machine::sub(Machine::load(x + c), mean);
    squares = Machine::fma(away, away, squares);
  }
  return {mean, Machine::all(1.0f / Machine::root(Machine::sum(squares) / width + kEpsilon))};
}

// Row ``i`` of the scratch from LN(x) * scale + shift.
template <class Kind>
inline void ready_modulated(Scratch& scratch, int i, const float* x, const float* shift, const float* scale, int width) {
  const Spread<Kind> s = spread<Kind>(x, width);
  Kind::ready(scratch, i, width, [&](int c) RTI_INLINE_LAMBDA {
    const auto normal = Kind::mul(Kind::sub(Kind::load(x + c), s.mean), s.over_std);
    return Kind::fma(normal, Kind::load(scale + c), Kind::load(shift + c));
  });
}

}  // namespace rti::cpu
