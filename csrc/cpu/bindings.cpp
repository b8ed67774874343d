// rtinteract._cpu: the transformer's pass for Python.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <stdexcept>
#include <string>

#include "transformer.h"

namespace py = pybind11;
using namespace rti::cpu;

namespace {

using Floats = py::array_t<float, py::array::c_style>;
using Steps = py::array_t<int8_t, py::array::c_style>;
using Tokens = py::array_t<int64_t, py::array::c_style>;

void expect(bool holds, const std::string& what) {
  if (!holds) throw std::invalid_argument(what);
}

Given given_of(const py::tuple& parts, Weights kind) {
  const py::array weight = parts[0];
  expect(weight.ndim() == 2, "weight: expected [outputs, inputs]");
  Given given;
  given.outputs = static_cast<int>(weight.shape(0));
  given.inputs = static_cast<int>(weight.shape(1));
  if (kind == Weights::kInt8) {
    expect(py::isinstance<Steps>(weight), "weight: expected int8");
    expect(py::isinstance<Floats>(parts[1]), "scale: expected float32");
    given.steps = static_cast<const int8_t*>(weight.data());
    const auto scale = py::cast<Floats>(parts[1]);
    expect(scale.size() == given.outputs, "scale: expected one an output");
    given.scale = scale.data();
  } else {
    expect(py::isinstance<Floats>(weight), "weight: expected float32");
    given.values = static_cast<const float*>(weight.data());
  }
  expect(py::isinstance<Floats>(parts[2]), "bias: expected float32");
  const auto bias = py::cast<Floats>(parts[2]);
  expect(bias.size() == given.outputs, "bias: expected one an output");
  given.bias = bias.data();
  expect(given.inputs % kLanes == 0, "inputs: expected a multiple of 16");
  return given;
}

Weights kind_of(const std::string& name) {
  if (name == "int8") return Weights::kInt8;
  if (name == "bfloat16") return Weights::kBfloat16;
  expect(name == "float32", "kind: expected int8, bfloat16 or float32");
  return Weights::kFloat32;
}

std::unique_ptr<Transformer> make(int width, int heads, int ff, int codes, int parts, const std::string& name,
                                  const std::vector<py::tuple>& linears, const Floats& table) {
  expect(heads >= 1 && width % heads == 0 && width / heads % kLanes == 0 && width / heads <= 4 * kLanes,
         "width: expected heads of 16, 32, 48 or 64");
  expect(parts >= 1 && parts <= kLanes, "parts: expected at most 16");
  expect(ff % kLanes == 0, "ff: expected a multiple of 16");
  expect(linears.size() >= 15 && (linears.size() - 2) % 13 == 0, "linears: expected 13 a block and two");
  expect(table.ndim() == 2 && table.shape(0) == codes + 3 && table.shape(1) == width, "table: expected [codes + 3, width]");
  const Weights kind = kind_of(name);
  const int w = width;
  const int shapes[13][2] = {{3 * w, w}, {w, w}, {ff, w}, {w, ff}, {3 * w, w}, {w, w}, {3 * w, w}, {w, w}, {w, w}, {2 * w, w},
                             {w, w},     {ff, w}, {w, ff}};
  std::vector<Given> given;
  for (size_t i = 0; i < linears.size(); ++i) {
    given.push_back(given_of(linears[i], kind));
    const bool block = i + 2 < linears.size();
    const int outputs = block ? shapes[i % 13][0] : (i + 2 == linears.size() ? w : codes), inputs = block ? shapes[i % 13][1] : w;
    expect(given.back().outputs == outputs && given.back().inputs == inputs, "linears: sizes do not fit width, ff and codes");
  }
  return std::make_unique<Transformer>(kind, Sizes{width, heads, ff, codes, parts}, given, table.data());
}

void run(Transformer& transformer, const Tokens& tokens, const Floats& modulations, const Floats& positions, const py::object& placement,
         int first_person, Floats& logits, int threads) {
  const Sizes& sizes = transformer.sizes();
  expect(tokens.ndim() == 4 && tokens.shape(1) == 2 && tokens.shape(2) == sizes.parts, "tokens: expected [B, 2, S, N]");
  Call call;
  call.batch = static_cast<int>(tokens.shape(0));
  call.columns = static_cast<int>(tokens.shape(3));
  expect(logits.ndim() == 5 && logits.shape(0) == call.batch && logits.shape(2) == sizes.parts && logits.shape(4) == sizes.codes &&
             logits.shape(3) >= 1 && logits.shape(3) <= call.columns && first_person >= 0 && first_person + logits.shape(1) <= 2,
         "logits: expected [B, people, S, last, K]");
  expect(modulations.ndim() == 3 && modulations.shape(0) == call.batch && modulations.shape(2) == sizes.width &&
             modulations.shape(1) == transformer.layers() * kBlockModulations + 2,
         "modulations: expected [B, 20 a block and 2, D]");
  expect(positions.size() == static_cast<py::ssize_t>(sizes.parts) * call.columns * sizes.width, "positions: expected [S, N, D]");
  for (py::ssize_t i = 0; i < tokens.size(); ++i) {
    expect(tokens.data()[i] >= 0 && tokens.data()[i] < sizes.codes + 3, "tokens: expected ids in [0, codes + 3)");
  }
  Floats placed;
  if (!placement.is_none()) {
    placed = py::cast<Floats>(placement);
    expect(placed.size() == static_cast<py::ssize_t>(call.batch) * 2 * call.columns * sizes.width, "placement: expected [B, 2, N, D]");
    call.placement = placed.data();
  }
  call.tokens = tokens.data();
  call.modulations = modulations.data();
  call.positions = positions.data();
  call.first_person = first_person;
  call.people = static_cast<int>(logits.shape(1));
  call.last = static_cast<int>(logits.shape(3));
  call.logits = logits.mutable_data();
  const py::gil_scoped_release release;
  transformer.run(call, threads);
}

}  // namespace

PYBIND11_MODULE(_cpu, m) {
  py::class_<Transformer>(m, "Transformer")
      .def(py::init(&make), py::arg("width"), py::arg("heads"), py::arg("ff"), py::arg("codes"), py::arg("parts"), py::arg("kind"),
           py::arg("linears"), py::arg("table"))
      .def("run", &run, py::arg("tokens").noconvert(), py::arg("modulations").noconvert(), py::arg("positions").noconvert(),
           py::arg("placement"), py::arg("first_person"), py::arg("logits").noconvert(), py::arg("threads"));
}
