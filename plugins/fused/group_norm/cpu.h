#pragma once

#include <cmath>

#include "fused/group_norm/kernel.h"

// The op in plain loops: the specification in code. Slow on purpose; cpu_simd.h is the fast
// one.

namespace m2f::group_norm {

// x and output [N, C, H * W], weight and bias [C].
inline void forward_plain(const Shape& s, float epsilon, bool is_rectified, const float* x,
                          const float* weight, const float* bias, float* output) {
  for (int64_t group = 0; group < s.all_groups(); ++group, x += s.size(), output += s.size()) {
    double mean = 0.0;
    for (int64_t i = 0; i < s.size(); ++i) mean += x[i];
    mean /= static_cast<double>(s.size());
    double variance = 0.0;
    for (int64_t i = 0; i < s.size(); ++i) variance += (x[i] - mean) * (x[i] - mean);
    variance /= static_cast<double>(s.size());
    const double scale = 1.0 / std::sqrt(variance + epsilon);
    for (int64_t i = 0; i < s.size(); ++i) {
      const int64_t c = group % s.groups * (s.channels / s.groups) + i / s.pixels;
      const double y = (x[i] - mean) * scale * weight[c] + bias[c];
      output[i] = is_rectified && y < 0.0 ? 0.0f : static_cast<float>(y);
    }
  }
}

}  // namespace m2f::group_norm
