#pragma once

#include "common/erf.h"
#include "common/host_device.h"

// What is done to each number by itself, by ops that have an attribute `activation`.

namespace m2f::fused {

enum class Activation : int32_t { kNone = 0, kRelu = 1, kGelu = 2 };

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

// The definition in code, for plain loops. (Of the C library, not <cmath>: this header is
// compiled for several instruction sets.)
M2F_HD float activate_plainly(Activation activation, float x) {
  if (activation == Activation::kRelu) return relu(x);
  if (activation == Activation::kGelu) return 0.5f * x * (1.0f + erff(x / sqrtf(2.0f)));
  return x;
}

}  // namespace m2f::fused
