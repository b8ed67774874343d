// The transformer with packed weights: one call runs a pass on the threads it is given.
#pragma once
#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include "model.h"

namespace rti::cpu {

// Zeroed memory on a cache line's border.
class Block {
 public:
  Block() = default;
  explicit Block(size_t bytes);
  uint8_t* data() const { return data_; }
  template <class T>
  T* as() const {
    return reinterpret_cast<T*>(data_);
  }

 private:
  std::unique_ptr<uint8_t[]> room_;
  uint8_t* data_ = nullptr;
};

// Weights as they come: int8 [outputs, inputs] with a scale for each output, or float32 without.
struct Given {
  int outputs = 0, inputs = 0;
  const int8_t* steps = nullptr;
  const float* values = nullptr;
  const float* scale = nullptr;
  const float* bias = nullptr;
};

struct Sizes {
  int width = 0, heads = 0, ff = 0, codes = 0, parts = 0;
};

struct Call {
  int batch = 0, columns = 0;
  const int64_t* tokens = nullptr;
  const float* modulations = nullptr;
  const float* positions = nullptr;
  const float* placement = nullptr;
  int first_person = 0, people = 2, last = 0;
  float* logits = nullptr;
};

class Transformer {
 public:
  // ``given`` holds 13 linears a layer in the order of `Layer`, then the output's dense and last one. ``table`` [codes + 3, width].
  Transformer(Weights kind, const Sizes& sizes, const std::vector<Given>& given, const float* table);

  // Logits [batch, people, parts, last, codes]; other shapes than the last call's make the buffers anew. One call at a time.
  void run(const Call& call, int threads);

  const Sizes& sizes() const { return sizes_; }
  int layers() const { return static_cast<int>(layers_.size()); }

 private:
  Linear keep(const Given& given);
  void resize(int batch, int columns, int threads);
  Memory memory(int groups, int keys, std::vector<Block>& kept) const;
  Scratch scratch(int keys);
  void run_group(Pass pass, int threads);

  size_t mixed_bytes() const { return static_cast<size_t>(kWord / mixed_.group); }

  const Weights kind_;
  const Layout layout_, mixed_;
  const Phases& phases_;
  const Sizes sizes_;
  std::vector<Block> weights_;
  std::vector<Layer> layers_;
  Linear dense_, output_;
  Block table_;

  std::mutex busy_;
  int batch_ = 0, columns_ = 0;
  Pass buffers_;
  std::vector<Block> room_;
  std::vector<Block> scratch_room_;
  std::vector<Scratch> scratch_;
};

}  // namespace rti::cpu
