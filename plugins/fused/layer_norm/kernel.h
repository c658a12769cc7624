#pragma once

#include "common/host_device.h"

namespace m2f::layer_norm {

struct Shape {
  int64_t rows;
  int64_t channels;  // C
};

// One call, split into tasks that any thread may run, each some whole rows.
struct Work {
  Shape shape;
  float epsilon;
  const float* x;
  const float* weight;
  const float* bias;
  float* output;

  M2F_HD_METHOD int64_t rows_per_task() const {
    constexpr int64_t kFloats = 16384;  // some 5 microseconds, many times what a task costs
    return shape.channels < kFloats ? kFloats / shape.channels : 1;
  }
  M2F_HD_METHOD int64_t tasks() const {
    return (shape.rows + rows_per_task() - 1) / rows_per_task();
  }
};

}  // namespace m2f::layer_norm
