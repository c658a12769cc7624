#pragma once

#include "common/kernels.h"
#include "common/parallel.h"
#include "common/status.h"
#include "fused/quantize/kernel.h"
#include "fused/quantize/spec.h"

namespace m2f::quantize {

struct Attributes {
  fused::Activation activation = fused::Activation::kNone;
};

// From what a node has, in the order of kAttributes.
Status read_attributes(const AttributeValue values[], Attributes* attributes);

// The numbers of `type`, which is kUInt8 or kInt8, and `zero` among them.
Grid make_grid(float scale, Storage type, const void* zero);

// Runs on the CPU: x and output have `count` elements.
void forward(const Attributes& attributes, const Grid& grid, int64_t count, const float* x,
             void* output, const Kernels& kernels, const Parallel& parallel);

}  // namespace m2f::quantize
