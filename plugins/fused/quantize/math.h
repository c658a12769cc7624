#pragma once

#include "common/storage.h"
#include "fused/quantize/kernel.h"

// The decisions of a quantisation.

namespace m2f::quantize {

// A number in steps from zero, as the bits of a float that shows its integer in the lowest
// ones: of those from 2^23 on no float has a fraction, so that the addition rounds to the
// nearest integer, ties to even. NaN gives `low`.
template <class Real>
M2F_HD Real rounded(Real x, const Grid& grid) {
  constexpr float kMagic = 12582912.0f;  // 1.5 * 2^23
  const Real steps = at_least(x / splat<Real>(grid.scale), splat<Real>(grid.low));
  return at_most(steps, splat<Real>(grid.high)) + splat<Real>(kMagic);
}

// What is added to those bits: `zero`, and away with the magic number's own.
M2F_HD int32_t offset_of(const Grid& grid) { return grid.zero - 0x4B400000; }

}  // namespace m2f::quantize
