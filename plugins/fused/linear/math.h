#pragma once

#include "common/erf.h"
#include "common/host_device.h"

// The decisions of a fully connected layer.

namespace m2f::linear {

enum class Activation : int32_t { kNone = 0, kRelu = 1, kGelu = 2 };

struct Shape {
  int64_t rows;     // M, of x and of the output
  int64_t inner;    // K
  int64_t columns;  // N
};

// NaN stays NaN.
template <class Real>
M2F_HD Real relu(Real x) {
  return x < splat<Real>(0.0f) ? splat<Real>(0.0f) : x;
}

// x Phi(x), Phi the distribution function of the normal distribution.
template <class Real>
M2F_HD Real gelu(Real x) {
  const Real half = 0.5f * x;
  return Lane<Real>::multiply_add(half, erf(0.707106781f * x), half);
}

template <class Real>
M2F_HD Real activate(Activation activation, Real x) {
  if (activation == Activation::kRelu) return relu(x);
  if (activation == Activation::kGelu) return gelu(x);
  return x;
}

}  // namespace m2f::linear
