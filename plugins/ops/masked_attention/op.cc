#include "ops/masked_attention/op.h"

#include <atomic>
#include <cinttypes>
#include <cstring>

#include "ops/masked_attention/cpu.h"

namespace m2f::masked_attention {
namespace {

Status differ(const char* axis, const char* a, int64_t size_a, const char* b, int64_t size_b) {
  return error("MaskedAttention: axis %s is %" PRId64 " in %s, but %" PRId64 " in %s", axis,
               size_b, b, size_a, a);
}

}  // namespace

Status read_attributes(const AttributeValue values[], Attributes* attributes) {
  attributes->heads = values[kAttributeHeads].ints[0];
  return {};
}

Status make_call(const Attributes& attributes, const TensorView inputs[], Shape* shape) {
  return make_shape(inputs[kInputQ].dims, inputs[kInputK].dims, inputs[kInputV].dims,
                    inputs[kInputMaskLogits].dims, attributes, shape);
}

Status make_shape(const int64_t q[3], const int64_t k[3], const int64_t v[3],
                  const int64_t mask[3], const Attributes& attributes, Shape* shape) {
  if (attributes.heads < 1 || q[2] % attributes.heads != 0) {
    return error("MaskedAttention: heads %" PRId64 " does not divide the %" PRId64
                 " channels of q",
                 attributes.heads, q[2]);
  }
  if (k[0] != q[0]) return differ("N", "q", q[0], "k", k[0]);
  if (v[0] != q[0]) return differ("N", "q", q[0], "v", v[0]);
  if (mask[0] != q[0]) return differ("N", "q", q[0], "mask_logits", mask[0]);
  if (mask[1] != q[1]) return differ("Q", "q", q[1], "mask_logits", mask[1]);
  if (v[1] != k[1]) return differ("S", "k", k[1], "v", v[1]);
  if (mask[2] != k[1]) return differ("S", "k", k[1], "mask_logits", mask[2]);
  if (k[2] != q[2]) return differ("C", "q", q[2], "k", k[2]);
  if (v[2] != q[2]) return differ("C", "q", q[2], "v", v[2]);
  *shape = {q[0], q[1], k[1], q[2], static_cast<int32_t>(attributes.heads)};
  return {};
}

Status forward(const Shape& shape, Storage storage, const void* q, const void* k, const void* v,
               const void* mask_logits, void* output, const Kernels& kernels,
               const Parallel& parallel) {
  const int64_t rows = shape.batch * shape.queries;
  if (rows == 0 || shape.channels == 0) return {};
  if (shape.positions == 0) {  // nothing to see: zeros, as a product over no positions is
    std::memset(output, 0, static_cast<size_t>(rows * shape.channels * width_of(storage)));
    return {};
  }
  Work work = {shape, storage, q, k, v, mask_logits, output, nullptr, 0};
  work.padded = (shape.depth() + kernels.lanes - 1) / kernels.lanes * kernels.lanes;

  thread_local Scratch bits;
  const size_t words = static_cast<size_t>(rows * work.blocks());
  work.seen = static_cast<uint64_t*>(bits.get(words * sizeof(uint64_t)));
  std::atomic<bool> has_memory{work.seen != nullptr};
  if (has_memory) {
    // Rows are short; a task of several costs the pool less than it does.
    constexpr int64_t kRows = 8;
    auto see = [&](int64_t task) {
      for (int64_t i = task * kRows; i < rows && i < (task + 1) * kRows; ++i) {
        kernels.masked_attention_see(work, i);
      }
    };
    auto attend = [&](int64_t task) {
      thread_local Scratch tile;
      void* memory = tile.get(static_cast<size_t>(work.scratch()) * sizeof(float));
      if (memory == nullptr) {
        has_memory = false;
        return;
      }
      kernels.masked_attention(work, task, static_cast<float*>(memory));
    };
    parallel.run((rows + kRows - 1) / kRows, see);
    parallel.run(work.tasks(), attend);
  }
  if (!has_memory) {
    return error("MaskedAttention: no memory for %" PRId64 " mask bits or a tile of %" PRId64
                 " floats",
                 rows * shape.positions, work.scratch());
  }
  return {};
}

void forward_plain(const Shape& shape, Storage storage, const void* q, const void* k,
                   const void* v, const void* mask_logits, void* output) {
  const auto run = [&](auto type) {
    using T = decltype(type);
    forward_plain(shape, static_cast<const T*>(q), static_cast<const T*>(k),
                  static_cast<const T*>(v), static_cast<const T*>(mask_logits),
                  static_cast<T*>(output));
  };
  if (storage == Storage::kFloat32) return run(float{});
  if (storage == Storage::kFloat16) return run(Half{});
  run(BFloat16{});
}

}  // namespace m2f::masked_attention
