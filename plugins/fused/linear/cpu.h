#pragma once

#include "fused/linear/math.h"

// The op in plain loops: the specification in code. Slow on purpose; cpu_simd.h is the fast
// one.

namespace m2f::linear {

// x [M, K], weight [K, N], bias [N], residual [M, N] or null, output [M, N].
inline void forward_plain(const Shape& s, Activation activation, const float* x,
                          const float* weight, const float* bias, const float* residual,
                          float* output) {
  for (int64_t m = 0; m < s.rows; ++m) {
    for (int64_t n = 0; n < s.columns; ++n) {
      float sum = 0.0f;
      for (int64_t k = 0; k < s.inner; ++k) {
        sum += x[m * s.inner + k] * weight[k * s.columns + n];
      }
      const float added = residual == nullptr ? 0.0f : residual[m * s.columns + n];
      output[m * s.columns + n] = fused::activate_plainly(activation, sum + bias[n]) + added;
    }
  }
}

}  // namespace m2f::linear
