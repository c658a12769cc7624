#pragma once

#include <cmath>

#include "fused/group_norm/kernel.h"

// The op in plain loops: the specification in code. Slow on purpose; cpu_simd.h is the fast
// one.

namespace m2f::group_norm {

// One pixel of a map [height, width] enlarged twofold.
inline double enlarged(const float* map, int64_t height, int64_t width, int64_t y, int64_t x) {
  const int64_t rows[] = {y / 2, neighbour(y, height)},
                columns[] = {x / 2, neighbour(x, width)};
  const double weights[] = {0.75, 0.25};
  double sum = 0.0;
  for (int i = 0; i < 2; ++i) {
    for (int j = 0; j < 2; ++j) {
      sum += weights[i] * weights[j] * map[rows[i] * width + columns[j]];
    }
  }
  return sum;
}

// x and output [N, C, H, W], weight and bias [C], coarse [N, C, H / 2, W / 2] or null.
inline void forward_plain(const Shape& s, float epsilon, bool is_rectified, const float* x,
                          const float* weight, const float* bias, const float* coarse,
                          float* output) {
  for (int64_t group = 0; group < s.all_groups(); ++group, x += s.size(), output += s.size()) {
    double mean = 0.0;
    for (int64_t i = 0; i < s.size(); ++i) mean += x[i];
    mean /= static_cast<double>(s.size());
    double variance = 0.0;
    for (int64_t i = 0; i < s.size(); ++i) variance += (x[i] - mean) * (x[i] - mean);
    variance /= static_cast<double>(s.size());
    const double scale = 1.0 / std::sqrt(variance + epsilon);
    for (int64_t i = 0; i < s.size(); ++i) {
      const int64_t plane = group * (s.channels / s.groups) + i / s.pixels();  // (n, c)
      const int64_t c = plane % s.channels;
      double y = (x[i] - mean) * scale * weight[c] + bias[c];
      if (is_rectified && y < 0.0) y = 0.0;
      if (coarse != nullptr) {
        const int64_t height = s.height / 2, width = s.width / 2, pixel = i % s.pixels();
        y += enlarged(coarse + plane * height * width, height, width, pixel / s.width,
                      pixel % s.width);
      }
      output[i] = static_cast<float>(y);
    }
  }
}

}  // namespace m2f::group_norm
