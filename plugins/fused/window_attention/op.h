#pragma once

#include "common/kernels.h"
#include "common/parallel.h"
#include "common/status.h"
#include "fused/window_attention/math.h"
#include "fused/window_attention/spec.h"

namespace m2f::window_attention {

struct Attributes {
  int64_t window = 0;
  int64_t shift = 0;
};

// From what a node has, in the order of kAttributes.
Status read_attributes(const AttributeValue values[], Attributes* attributes);

// Checks one call and says what disagrees; `inputs` as in kInputs.
Status make_call(const Attributes& attributes, const TensorView inputs[], Shape* shape);

// Checks sizes and says which two disagree: qkv [N, H, W, 3 C], padding [3, C], position_bias
// [M, T, T].
Status make_shape(const int64_t qkv[4], const int64_t padding[2], const int64_t bias[3],
                  const Attributes& attributes, Shape* shape);

// Runs on the CPU; output [N, H, W, C]. Fails only for want of memory.
Status forward(const Shape& shape, const float* qkv, const float* padding,
               const float* position_bias, float* output, const Kernels& kernels,
               const Parallel& parallel);

}  // namespace m2f::window_attention
