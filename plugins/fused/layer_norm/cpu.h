#pragma once

#include <cmath>

#include "fused/layer_norm/kernel.h"

// The op in plain loops: the specification in code. Slow on purpose; cpu_simd.h is the fast
// one.

namespace m2f::layer_norm {

// x and output [rows, C], weight and bias [C].
inline void forward_plain(const Shape& s, float epsilon, const float* x, const float* weight,
                          const float* bias, float* output) {
  for (int64_t row = 0; row < s.rows; ++row, x += s.channels, output += s.channels) {
    double mean = 0.0;
    for (int64_t c = 0; c < s.channels; ++c) mean += x[c];
    mean /= static_cast<double>(s.channels);
    double variance = 0.0;
    for (int64_t c = 0; c < s.channels; ++c) variance += (x[c] - mean) * (x[c] - mean);
    variance /= static_cast<double>(s.channels);
    const double scale = 1.0 / std::sqrt(variance + epsilon);
    for (int64_t c = 0; c < s.channels; ++c) {
      output[c] = static_cast<float>((x[c] - mean) * scale * weight[c] + bias[c]);
    }
  }
}

}  // namespace m2f::layer_norm
