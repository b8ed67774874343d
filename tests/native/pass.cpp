// The transformer's pass with seeded weights: the same logits from one thread and from several, for shapes that come and go.
#include <cmath>
#include <cstdio>
#include <cstring>
#include <random>
#include <thread>
#include <vector>

#include "../../csrc/cpu/transformer.h"

using namespace rti::cpu;

namespace {

constexpr int kWidth = 64, kHeads = 2, kHidden = 48, kCodes = 37, kParts = 5, kLayers = 2;
std::mt19937 g(1);

std::vector<float> floats(size_t n) {
  std::normal_distribution<float> normal(0.0f, 0.2f);
  std::vector<float> values(n);
  for (float& v : values) v = normal(g);
  return values;
}

struct Net {
  std::vector<std::vector<float>> rooms;
  std::vector<std::vector<int8_t>> steps;
  std::vector<Given> given;
  std::vector<float> table = floats((kCodes + 3) * kWidth);

  void add(Weights kind, int outputs, int inputs) {
    Given one;
    one.outputs = outputs;
    one.inputs = inputs;
    rooms.push_back(floats(static_cast<size_t>(outputs) * inputs));
    one.values = rooms.back().data();
    rooms.push_back(floats(outputs));
    one.bias = rooms.back().data();
    if (kind == Weights::kInt8) {
      steps.emplace_back();
      for (int i = 0; i < outputs * inputs; ++i) steps.back().push_back(static_cast<int8_t>(static_cast<int>(g() % 255) - 127));
      one.steps = steps.back().data();
      rooms.push_back(std::vector<float>(outputs, 0.002f));
      one.scale = rooms.back().data();
    }
    given.push_back(one);
  }

  explicit Net(Weights kind) {
    const int w = kWidth;
    const int shapes[13][2] = {{3 * w, w}, {w, w}, {kHidden, w}, {w, kHidden}, {3 * w, w}, {w, w},       {3 * w, w},
                               {w, w},     {w, w}, {2 * w, w},   {w, w},       {kHidden, w}, {w, kHidden}};
    for (int layer = 0; layer < kLayers; ++layer) {
      for (const auto& shape : shapes) add(kind, shape[0], shape[1]);
    }
    add(kind, w, w);
    add(kind, kCodes, w);
  }
};

struct Question {
  int batch, columns;
  std::vector<int64_t> tokens;
  std::vector<float> modulations, positions;

  Question(int b, int n) : batch(b), columns(n) {
    for (int i = 0; i < b * 2 * kParts * n; ++i) tokens.push_back(g() % (kCodes + 1));
    modulations = floats(static_cast<size_t>(b) * (kLayers * kBlockModulations + 2) * kWidth);
    positions = floats(static_cast<size_t>(kParts) * n * kWidth);
  }

  std::vector<float> ask(Transformer& net, int threads) const {
    std::vector<float> logits(static_cast<size_t>(batch) * 2 * kParts * columns * kCodes, NAN);
    Call call;
    call.batch = batch;
    call.columns = columns;
    call.tokens = tokens.data();
    call.modulations = modulations.data();
    call.positions = positions.data();
    call.last = columns;
    call.logits = logits.data();
    net.run(call, threads);
    return logits;
  }
};

}  // namespace

int main() {
  for (const Weights kind : {Weights::kInt8, Weights::kBfloat16}) {
    const Net seeds(kind);
    Transformer net(kind, {kWidth, kHeads, kHidden, kCodes, kParts}, seeds.given, seeds.table.data());
    const Question asked[] = {{1, 1}, {2, 9}, {1, 14}, {3, 2}};
    for (const Question& question : asked) {
      const std::vector<float> alone = question.ask(net, 1);
      for (const float value : alone) {
        if (!std::isfinite(value)) return std::puts("a logit is not finite"), 1;
      }
      for (const int threads : {2, 3}) {
        const std::vector<float> together = question.ask(net, threads);
        if (std::memcmp(alone.data(), together.data(), alone.size() * sizeof(float))) return std::puts("threads change the answer"), 1;
      }
    }
    std::vector<std::thread> callers;
    for (int i = 0; i < 2; ++i) callers.emplace_back([&, i] { asked[i + 1].ask(net, 2); });
    for (std::thread& caller : callers) caller.join();
  }
  std::puts("ok");
  return 0;
}
