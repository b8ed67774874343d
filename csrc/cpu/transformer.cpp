#include "transformer.h"

#include <algorithm>
#include <atomic>
#include <cstring>

#include "pool.h"

namespace rti::cpu {
namespace {

constexpr size_t kLine = 64;
// Rows of samples that pass together: more would only need more memory.
constexpr int kGroupRows = 1536;

size_t padded(size_t n, size_t to) { return (n + to - 1) / to * to; }

uint16_t bfloat16(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  return static_cast<uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

// Chunks of the ``rows`` rows of each of ``batch`` samples, several for each thread.
std::vector<Chunk> chunks(int batch, int rows, int threads) {
  int size = kChunk;
  if (threads > 1) {
    const int share = (batch * rows + threads * 4 - 1) / (threads * 4);
    size = std::min(kChunk, static_cast<int>(padded(static_cast<size_t>(share), kTileRows)));
  }
  std::vector<Chunk> all;
  for (int row = 0; row < batch; ++row) {
    for (int first = 0; first < rows; first += size) all.push_back({row, first, std::min(size, rows - first)});
  }
  return all;
}

}  // namespace

Block::Block(size_t bytes) : room_(new uint8_t[bytes + kLine]()) {
  data_ = room_.get() + (kLine - reinterpret_cast<uintptr_t>(room_.get()) % kLine) % kLine;
}

Transformer::Transformer(Weights kind, const Sizes& sizes, const std::vector<Given>& given, const float* table)
    : kind_(kind),
      layout_(layout(kind)),
      mixed_(mixed_layout(kind)),
      phases_(kind == Weights::kInt8 ? kInt8Phases : kind == Weights::kBfloat16 ? kBfloat16Phases : kFloat32Phases),
      sizes_(sizes) {
  size_t next = 0;
  layers_.resize((given.size() - 2) / 13);
  for (Layer& layer : layers_) {
    for (Linear* linear : {&layer.qkv, &layer.out, &layer.up_combined, &layer.down_combined, &layer.spatial_qkv, &layer.spatial_out,
                           &layer.temporal_qkv, &layer.temporal_out, &layer.cross_query, &layer.cross_memory, &layer.cross_out,
                           &layer.up_split, &layer.down_split}) {
      *linear = keep(given[next++]);
    }
  }
  dense_ = keep(given[next++]);
  output_ = keep(given[next]);
  const size_t bytes = static_cast<size_t>(sizes.codes + 3) * sizes.width * sizeof(float);
  table_ = Block(bytes);
  std::memcpy(table_.data(), table, bytes);
}

Linear Transformer::keep(const Given& given) {
  const size_t panel = layout_.panel, group = layout_.group, bytes = kWord / group;
  const size_t columns = padded(static_cast<size_t>(given.outputs), panel);
  Linear linear;
  linear.inputs = given.inputs;
  linear.outputs = given.outputs;
  Block packed(columns * given.inputs * bytes), bias(columns * sizeof(float)), scale(columns * sizeof(float));
  for (size_t n = 0; n < static_cast<size_t>(given.outputs); ++n) {
    for (size_t k = 0; k < static_cast<size_t>(given.inputs); ++k) {
      const size_t at = (n / panel * (given.inputs / group) + k / group) * panel * group + n % panel * group + k % group;
      const size_t from = n * given.inputs + k;
      switch (kind_) {
        case Weights::kInt8: packed.data()[at] = static_cast<uint8_t>(given.steps[from] + 128); break;
        case Weights::kBfloat16: packed.as<uint16_t>()[at] = bfloat16(given.values[from]); break;
        case Weights::kFloat32: packed.as<float>()[at] = given.values[from]; break;
      }
    }
  }
  std::memcpy(bias.data(), given.bias, sizeof(float) * given.outputs);
  if (kind_ == Weights::kInt8) std::memcpy(scale.data(), given.scale, sizeof(float) * given.outputs);
  linear.packed = packed.data();
  linear.bias = bias.as<float>();
  linear.scale = scale.as<float>();
  for (Block* block : {&packed, &bias, &scale}) weights_.push_back(std::move(*block));
  return linear;
}

Memory Transformer::memory(int groups, int keys, std::vector<Block>& kept) const {
  const size_t head = static_cast<size_t>(sizes_.width / sizes_.heads);
  Memory m;
  m.count = keys;
  m.keys_stride = padded(keys, mixed_.panel) * head * mixed_bytes();
  m.values_stride = padded(keys, mixed_.group) * head * mixed_bytes();
  kept.emplace_back(groups * m.keys_stride);
  m.keys = kept.back().data();
  kept.emplace_back(groups * m.values_stride);
  m.values = kept.back().data();
  return m;
}

Scratch Transformer::scratch(int keys) {
  const size_t width = static_cast<size_t>(sizes_.width), ff = static_cast<size_t>(sizes_.ff), wide = std::max(width, ff);
  const size_t room = padded(keys, mixed_.panel);
  auto take = [&](size_t bytes) {
    scratch_room_.emplace_back(bytes);
    return scratch_room_.back().data();
  };
  Scratch s;
  s.rows = take(kChunk * wide * mixed_bytes());
  s.row_scale = reinterpret_cast<float*>(take(kChunk * sizeof(float)));
  s.row_offset = reinterpret_cast<int32_t*>(take(kChunk * sizeof(int32_t)));
  s.attended = reinterpret_cast<float*>(take(kChunk * width * sizeof(float)));
  s.hidden = reinterpret_cast<float*>(take(kChunk * ff * sizeof(float)));
  s.line = reinterpret_cast<float*>(take(wide * sizeof(float)));
  s.query = take(kChunk * width * mixed_bytes());
  s.scores = reinterpret_cast<float*>(take(kTileRows * room * sizeof(float)));
  s.weights = take(kTileRows * room * mixed_bytes());
  return s;
}

void Transformer::resize(int batch, int columns, int threads) {
  const int tokens = 2 * sizes_.parts * columns;
  if (batch > batch_ || columns != columns_) {
    const size_t each = static_cast<size_t>(batch) * tokens, width = static_cast<size_t>(sizes_.width);
    room_.clear();
    scratch_.clear();
    scratch_room_.clear();
    auto take = [&](size_t bytes) {
      room_.emplace_back(bytes);
      return room_.back().data();
    };
    buffers_.x = reinterpret_cast<float*>(take((each + batch) * width * sizeof(float)));
    buffers_.query = take((each + batch) * width * mixed_bytes());
    buffers_.spatial = take(each * 3 * width * mixed_bytes());
    buffers_.temporal_query = take(each * width * mixed_bytes());
    buffers_.self = memory(batch * sizes_.heads, tokens + 1, room_);
    buffers_.temporal = memory(batch * 2 * sizes_.parts * sizes_.heads, columns, room_);
    buffers_.cross = memory(batch * 2 * sizes_.heads, tokens / 2, room_);
    batch_ = batch;
    columns_ = columns;
  }
  while (static_cast<int>(scratch_.size()) < threads) scratch_.push_back(scratch(tokens + 1));
}

void Transformer::run(const Call& call, int threads) {
  const std::lock_guard<std::mutex> lock(busy_);
  threads = std::max(1, threads);
  const int length = 2 * sizes_.parts * call.columns + 1;
  const int group = std::min(call.batch, std::max(1, kGroupRows / length));
  resize(group, call.columns, threads);
  Pass pass = buffers_;
  pass.width = sizes_.width;
  pass.heads = sizes_.heads;
  pass.ff = sizes_.ff;
  pass.codes = sizes_.codes;
  pass.parts = sizes_.parts;
  pass.layers = static_cast<int>(layers_.size());
  pass.layer = layers_.data();
  pass.dense = dense_;
  pass.output = output_;
  pass.table = table_.as<float>();
  pass.columns = call.columns;
  pass.positions = call.positions;
  pass.first_person = call.first_person;
  pass.people = call.people;
  pass.last = call.last;
  const size_t tokens = static_cast<size_t>(length - 1), width = static_cast<size_t>(sizes_.width);
  for (int first = 0; first < call.batch; first += group) {
    pass.batch = std::min(group, call.batch - first);
    pass.tokens = call.tokens + first * tokens;
    pass.modulations = call.modulations + first * (layers_.size() * kBlockModulations + 2) * width;
    pass.placement = call.placement ? call.placement + first * 2 * call.columns * width : nullptr;
    pass.logits = call.logits + static_cast<size_t>(first) * call.people * sizes_.parts * call.last * sizes_.codes;
    run_group(pass, threads);
  }
}

void Transformer::run_group(Pass pass, int threads) {
  const std::vector<Chunk> all = chunks(pass.batch, pass.length(), threads);
  const std::vector<Chunk> people = chunks(pass.batch, pass.length() - 1, threads);
  const std::vector<Chunk> wanted = chunks(pass.batch, pass.people * pass.parts * pass.last, threads);
  const int phases = 2 * pass.layers + 1;
  const std::unique_ptr<std::atomic<int>[]> next(new std::atomic<int>[phases]());
  Pool::shared()->run(threads, [&, barrier = std::make_shared<Barrier>(threads)](int thread, int together) {
    Scratch& mine = scratch_[thread];
    auto phase = [&](int which, int count, auto&& work) {
      for (int i; (i = next[which].fetch_add(1, std::memory_order_relaxed)) < count;) work(i);
      if (together > 1) barrier->wait();
    };
    phase(0, static_cast<int>(all.size()), [&](int i) { phases_.begin(pass, all[i], mine); });
    for (int block = 0; block < pass.layers; ++block) {
      phase(2 * block + 1, static_cast<int>(all.size()), [&](int i) { phases_.combined(pass, block, all[i], mine); });
      const bool final = block + 1 == pass.layers;
      const std::vector<Chunk>& parts = final ? wanted : people;
      const int count = static_cast<int>(parts.size());
      phase(2 * block + 2, count + (final ? 0 : pass.batch), [&](int i) {
        i < count ? phases_.split(pass, block, parts[i], mine) : phases_.separator(pass, block + 1, i - count, mine);
      });
    }
  });
}

}  // namespace rti::cpu
