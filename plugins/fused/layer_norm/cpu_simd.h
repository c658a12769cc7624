#pragma once

#include "fused/layer_norm/kernel.h"
#include "fused/moments_simd.h"

// LayerNorm in vectors, for one instruction set per inclusion.
//
// Work:    a task is some rows.
// Traffic: a row is read once from where it lies, twice more from the first cache, and written
//          once. Memory binds, so rows are asked for before their turn.
// Math:    moments.h, moments_simd.h. Not here: threads, checks (op.cc).

namespace m2f::layer_norm {
namespace {

constexpr int64_t kAhead = 1024;  // floats

void normalise(const Work& work, int64_t task) {
  const int64_t channels = work.shape.channels;
  const int64_t begin = task * work.rows_per_task();
  const int64_t left = work.shape.rows - begin;
  const int64_t end = begin + (left < work.rows_per_task() ? left : work.rows_per_task());
  for (int64_t row = begin; row < end; ++row) {
    const float* x = work.x + row * channels;
    float* y = work.output + row * channels;
    const fused::Moments m = fused::moments(x, channels);
    const float scale = fused::inverse_deviation(m, channels, work.epsilon);
    const float offset = -m.rest * scale;
    int64_t c = 0;
    for (; c + kLanes <= channels; c += kLanes) {
      __builtin_prefetch(x + c + kAhead, 0);
      __builtin_prefetch(y + c + kAhead, 1);
      const Floats unit = (load(x + c) - m.shift) * scale + offset;
      store_vector(unit * load(work.weight + c) + load(work.bias + c), y + c);
    }
    for (; c < channels; ++c) {
      const float unit = (x[c] - m.shift) * scale + offset;
      y[c] = unit * work.weight[c] + work.bias[c];
    }
  }
}

}  // namespace
}  // namespace m2f::layer_norm
