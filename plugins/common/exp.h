#pragma once

#include "common/host_device.h"

namespace m2f {

// exp(x) for x <= 0 or NaN, the only arguments a softmax has; 0 below -87, where a float's
// exponent ends.
//
// x = n ln 2 + r with |r| <= ln(2) / 2, and Taylor's series of degree 7 for exp(r): its
// remainder r^8 / 8! is below 2^-27. Adding 1.5 * 2^23 rounds to an integer without a cast,
// which would be undefined for NaN.
template <class Real>
M2F_HD Real exp_nonpositive(Real x) {
  constexpr float kMagic = 12582912.0f;
  constexpr uint32_t kMagicBits = 0x4B400000u;
  const Real shifted = x * 1.44269504f + kMagic;
  const Real n = shifted - kMagic;
  // ln 2 in two parts, the first with so few bits that n times it is exact.
  const Real r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
  Real p = r * (1.0f / 5040.0f) + 1.0f / 720.0f;
  p = p * r + 1.0f / 120.0f;
  p = p * r + 1.0f / 24.0f;
  p = p * r + 1.0f / 6.0f;
  p = p * r + 0.5f;
  p = p * r + 1.0f;
  p = p * r + 1.0f;
  const Real power = Lane<Real>::power_of_two(shifted, kMagicBits);
  return x < splat<Real>(-87.0f) ? splat<Real>(0.0f) : p * power;
}

}  // namespace m2f
