#include "fused/window_attention/op.h"

#include <atomic>
#include <cinttypes>

namespace m2f::window_attention {

Status read_attributes(const AttributeValue values[], Attributes* attributes) {
  attributes->window = values[kAttributeWindow].ints[0];
  attributes->shift = values[kAttributeShift].ints[0];
  return {};
}

Status make_call(const Attributes& attributes, const TensorView inputs[], Shape* shape) {
  return make_shape(inputs[kInputQkv].dims, inputs[kInputPadding].dims,
                    inputs[kInputPositionBias].dims, attributes, shape);
}

Status make_shape(const int64_t qkv[4], const int64_t padding[2], const int64_t bias[3],
                  const Attributes& attributes, Shape* shape) {
  const int64_t heads = bias[0], tokens = bias[1], channels = padding[1];
  const int64_t window = attributes.window, shift = attributes.shift;
  if (window < 1) return error("WindowAttention: window is at least 1, got %" PRId64, window);
  if (shift < 0 || shift >= window) {
    return error("WindowAttention: shift is from 0 to below window %" PRId64 ", got %" PRId64,
                 window, shift);
  }
  if (padding[0] != 3) {
    return error("WindowAttention: axis Q of padding is 3, got %" PRId64, padding[0]);
  }
  if (qkv[3] % 3 != 0 || qkv[3] / 3 != channels) {
    return error("WindowAttention: axis E of qkv is 3 C, got %" PRId64 " with C %" PRId64
                 " in padding",
                 qkv[3], channels);
  }
  if (bias[2] != tokens) {
    return error("WindowAttention: position_bias has two axes T, got %" PRId64 " and %" PRId64,
                 tokens, bias[2]);
  }
  if (tokens % window != 0 || tokens / window != window) {
    return error("WindowAttention: axis T is %" PRId64
                 " in position_bias, not the square of window %" PRId64,
                 tokens, window);
  }
  if (heads < 1 || channels % heads != 0) {
    return error("WindowAttention: axis M, %" PRId64
                 " in position_bias, does not divide the %" PRId64 " channels of padding",
                 heads, channels);
  }
  *shape = {qkv[0], qkv[1], qkv[2], heads, channels / heads, window, shift};
  return {};
}

Status forward(const Shape& shape, const float* qkv, const float* padding,
               const float* position_bias, float* output, const Kernels& kernels,
               const Parallel& parallel) {
  if (shape.pixels() == 0 || shape.depth == 0) return {};
  const auto whole_vectors = [&](int64_t count) {
    return (count + kernels.lanes - 1) / kernels.lanes * kernels.lanes;
  };
  const Work work = {shape,
                     qkv,
                     padding,
                     position_bias,
                     output,
                     whole_vectors(shape.tokens()),
                     whole_vectors(shape.depth)};
  std::atomic<bool> has_memory{true};
  auto attend = [&](int64_t task) {
    thread_local Scratch tile;
    void* memory = tile.get(static_cast<size_t>(work.scratch()) * sizeof(float));
    if (memory == nullptr) {
      has_memory = false;
      return;
    }
    kernels.window_attention(work, task, static_cast<float*>(memory));
  };
  parallel.run(work.tasks(), attend);
  if (!has_memory) {
    return error("WindowAttention: no memory for a window of %" PRId64 " floats",
                 work.scratch());
  }
  return {};
}

}  // namespace m2f::window_attention
