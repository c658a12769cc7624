#pragma once

#include "common/host_device.h"

namespace m2f {

// The error function, off by at most 5 units in the last place; NaN gives NaN.
//
// Beyond 3.79 its distance from 1 is below 2^-23, and the argument is held there. Within,
// erf(x) / x is a polynomial of degree 14 in t = 2 (x / 3.79)^2 - 1, fitted for the least
// relative error, which is 2^-23.9. Around the middle of the range its coefficients are small,
// and their sum is nowhere much below the largest: rounding errors stay as small as that of the
// fit. The result is exactly 1 at the end of the range and nowhere above, fused multiply-add or
// not.
//
// In place, of several at a time: each waits for its own products, but not for the others'.
template <class Real, int kCount>
M2F_HD void erf(Real (&x)[kCount]) {
  constexpr float kEnd = 3.79f;
  // Of the highest power first.
  constexpr float kTerms[] = {1.064514043e-03f,  -2.653561067e-03f, 2.042500069e-03f,
                              -3.068302758e-03f, 1.004793216e-02f,  -1.819913462e-02f,
                              2.618767321e-02f,  -3.851845488e-02f, 5.482338741e-02f,
                              -7.237055153e-02f, 9.081675857e-02f,  -1.113383248e-01f,
                              1.380456984e-01f,  -1.861151010e-01f, 3.730871975e-01f};
  const Real end = splat<Real>(kEnd);
  Real t[kCount];
  Real sum[kCount];
  for (int i = 0; i < kCount; ++i) {
    x[i] = x[i] > end ? end : x[i];
    x[i] = x[i] < -end ? -end : x[i];
    t[i] = Lane<Real>::multiply_add(x[i] * x[i], splat<Real>(0.13923602f), splat<Real>(-1.0f));
    sum[i] = splat<Real>(kTerms[0]);
  }
  for (int term = 1; term < 15; ++term) {
    for (int i = 0; i < kCount; ++i) {
      sum[i] = Lane<Real>::multiply_add(sum[i], t[i], splat<Real>(kTerms[term]));
    }
  }
  for (int i = 0; i < kCount; ++i) x[i] *= sum[i];
}

}  // namespace m2f
