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
template <class Real, int kCount>
M2F_HD void gelu(Real (&x)[kCount]) {
  Real part[kCount];
  for (int i = 0; i < kCount; ++i) part[i] = 0.707106781f * x[i];
  erf(part);
  for (int i = 0; i < kCount; ++i) {
    const Real half = 0.5f * x[i];
    x[i] = Lane<Real>::multiply_add(half, part[i], half);
  }
}

template <class Real, int kCount>
M2F_HD void activate(Activation activation, Real (&x)[kCount]) {
  if (activation == Activation::kGelu) return gelu(x);
  if (activation != Activation::kRelu) return;
  for (int i = 0; i < kCount; ++i) x[i] = relu(x[i]);
}

}  // namespace m2f::linear
