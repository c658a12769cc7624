#pragma once

#include "common/exp.h"
#include "common/host_device.h"

// The decisions of masked attention (Cheng et al., Mask2Former, CVPR 2022, eq. 2).

namespace m2f::masked_attention {

struct Shape {
  int64_t batch;      // N
  int64_t queries;    // Q
  int64_t positions;  // S
  int64_t channels;   // C
  int32_t heads;      // M

  M2F_HD_METHOD int64_t depth() const { return channels / heads; }
};

// sigmoid(x) < 0.5, without computing it; 0, -0 and NaN are seen.
template <class Real>
M2F_HD auto is_hidden(Real mask_logit) {
  return mask_logit < splat<Real>(0.0f);
}

// Subtracted from scores before exp: their maximum, but 0 while every score seen so far is
// -infinity, whose difference from itself would be NaN.
M2F_HD float softmax_shift(float best) { return best == -__builtin_inff() ? 0.0f : best; }

}  // namespace m2f::masked_attention
