#pragma once

#include "common/kernels.h"
#include "common/parallel.h"
#include "common/status.h"
#include "fused/group_norm/kernel.h"
#include "fused/group_norm/spec.h"

namespace m2f::group_norm {

struct Attributes {
  int64_t groups = 0;
  float epsilon = 0.0f;
  int64_t activation = 0;  // 0 none, 1 ReLU

  bool is_rectified() const { return activation == 1; }
};

// From what a node has, in the order of kAttributes.
Status read_attributes(const AttributeValue values[], Attributes* attributes);

// Checks one call and says what disagrees; `inputs` as in kInputs, of which `count` are given.
Status make_call(const Attributes& attributes, const TensorView inputs[], int64_t count,
                 Shape* shape);

// Checks sizes and says which two disagree: x [N, C, H, W], weight and bias [C],
// coarse [N, C, H / 2, W / 2] or null.
Status make_shape(const int64_t x[4], const int64_t weight[1], const int64_t bias[1],
                  const int64_t coarse[4], const Attributes& attributes, Shape* shape);

// Runs on the CPU; `coarse` may be null. Fails only for want of memory.
Status forward(const Shape& shape, const Attributes& attributes, const float* x,
               const float* weight, const float* bias, const float* coarse, float* output,
               const Kernels& kernels, const Parallel& parallel);

}  // namespace m2f::group_norm
