#pragma once

#include "fused/activation.h"

// The decisions of a fully connected layer.

namespace m2f::linear {

using fused::Activation;

struct Shape {
  int64_t rows;     // M, of x and of the output
  int64_t inner;    // K
  int64_t columns;  // N
};

}  // namespace m2f::linear
