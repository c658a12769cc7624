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
template <class Real>
M2F_HD Real erf(Real x) {
  constexpr float kEnd = 3.79f;
  // Of the highest power first.
  constexpr float kTerms[] = {1.064514043e-03f,  -2.653561067e-03f, 2.042500069e-03f,
                              -3.068302758e-03f, 1.004793216e-02f,  -1.819913462e-02f,
                              2.618767321e-02f,  -3.851845488e-02f, 5.482338741e-02f,
                              -7.237055153e-02f, 9.081675857e-02f,  -1.113383248e-01f,
                              1.380456984e-01f,  -1.861151010e-01f, 3.730871975e-01f};
  const Real end = splat<Real>(kEnd);
  x = x > end ? end : x;
  x = x < -end ? -end : x;
  const Real t = Lane<Real>::multiply_add(x * x, splat<Real>(0.13923602f), splat<Real>(-1.0f));
  Real sum = splat<Real>(kTerms[0]);
  for (int i = 1; i < 15; ++i) sum = Lane<Real>::multiply_add(sum, t, splat<Real>(kTerms[i]));
  return x * sum;
}

}  // namespace m2f
