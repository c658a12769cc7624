#pragma once

#include "common/kernels.h"
#include "common/parallel.h"
#include "common/status.h"
#include "fused/layer_norm/kernel.h"
#include "fused/layer_norm/spec.h"

namespace m2f::layer_norm {

struct Attributes {
  float epsilon = 0.0f;
};

// From what a node has, in the order of kAttributes.
Status read_attributes(const AttributeValue values[], Attributes* attributes);

// Checks one call and says what disagrees; `inputs` as in kInputs.
Status make_call(const TensorView inputs[], Shape* shape);

// Checks sizes and says which two disagree: x [rows, C], weight and bias [C].
Status make_shape(const int64_t x[2], const int64_t weight[1], const int64_t bias[1],
                  Shape* shape);

// Runs on the CPU.
void forward(const Shape& shape, const Attributes& attributes, const float* x,
             const float* weight, const float* bias, float* output, const Kernels& kernels,
             const Parallel& parallel);

}  // namespace m2f::layer_norm
