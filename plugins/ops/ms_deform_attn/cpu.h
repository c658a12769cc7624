#pragma once

#include <cmath>

#include "common/storage.h"
#include "ops/ms_deform_attn/math.h"

// The op in plain loops: the specification in code. Slow on purpose; cpu_simd.h is the fast
// one.

namespace m2f::ms_deform_attn {

// One head of one query: output[D] of value, the head's column of one image [S, C].
template <class V, class T>
void attend(const Shape& s, float value_scale, const V* value, const T* offsets,
            const T* logits, float centre_x, float centre_y, T* output) {
  float best = -INFINITY;
  float sum = 0.0f;
  for (int32_t j = 0; j < s.samples(); ++j) best = at_least(to_float(logits[j]), best);
  for (int32_t j = 0; j < s.samples(); ++j) sum += std::exp(to_float(logits[j]) - best);

  for (int64_t d = 0; d < s.depth(); ++d) {
    float blend = 0.0f;
    for (int32_t j = 0; j < s.samples(); ++j) {  // (l, p)
      const Level& level = s.level[j / s.points];
      const float width = static_cast<float>(level.width);
      const float height = static_cast<float>(level.height);
      const auto x = around(coordinate(centre_x, to_float(offsets[2 * j]), width), width);
      const auto y = around(coordinate(centre_y, to_float(offsets[2 * j + 1]), height), height);
      const auto at = [&](int32_t row, int32_t column) {
        const int64_t position = level.start + int64_t{row} * level.width + column;
        return to_float(value[position * s.channels + d]);
      };
      const float upper = x.near_share * at(y.near, x.near) + x.far_share * at(y.near, x.far);
      const float lower = x.near_share * at(y.far, x.near) + x.far_share * at(y.far, x.far);
      const float weight = std::exp(to_float(logits[j]) - best) / sum;
      blend += weight * (y.near_share * upper + y.far_share * lower);
    }
    store(blend * value_scale, output + d);
  }
}

// value [N, S, C], sampling [N, S, R], output [N, S, C].
template <class V, class T>
void forward_plain(const Shape& s, float value_scale, const V* value, const T* sampling,
                   T* output) {
  for (int64_t n = 0; n < s.batch; ++n) {
    int64_t query = n * s.positions;
    for (int32_t l = 0; l < s.levels; ++l) {
      const Level& own = s.level[l];
      for (int32_t i = 0; i < own.height * own.width; ++i, ++query) {
        const float x = (static_cast<float>(i % own.width) + 0.5f) / own.width;
        const float y = (static_cast<float>(i / own.width) + 0.5f) / own.height;
        const T* offsets = sampling + query * s.sampling_width();
        const T* logits = offsets + int64_t{2} * s.heads * s.samples();
        for (int32_t m = 0; m < s.heads; ++m) {
          const int64_t column = m * s.depth();
          attend(s, value_scale, value + n * s.positions * s.channels + column,
                 offsets + 2 * m * s.samples(), logits + m * s.samples(), x, y,
                 output + query * s.channels + column);
        }
      }
    }
  }
}

}  // namespace m2f::ms_deform_attn
