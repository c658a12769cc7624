#pragma once

#include <cmath>
#include <cstdint>
#include <vector>

#include "common/storage.h"
#include "ops/masked_attention/math.h"

// The op in plain loops: the specification in code. Slow on purpose; cpu_simd.h is the fast
// one.

namespace m2f::masked_attention {

// One head of one query. q and output are [D]; k and v the head's columns of one image [S, C].
template <class T>
void attend(const Shape& s, const T* q, const T* k, const T* v, const T* mask, float* score,
            T* output) {
  const float scale = 1.0f / std::sqrt(static_cast<float>(s.depth()));
  bool sees_any = false;
  for (int64_t i = 0; i < s.positions; ++i) sees_any |= !is_hidden(to_float(mask[i]));

  float best = -INFINITY;
  for (int64_t i = 0; i < s.positions; ++i) {
    float dot = 0.0f;
    for (int64_t d = 0; d < s.depth(); ++d) {
      dot += to_float(q[d]) * scale * to_float(k[i * s.channels + d]);
    }
    score[i] = sees_any && is_hidden(to_float(mask[i])) ? -INFINITY : dot;
    best = at_least(score[i], best);
  }
  float sum = 0.0f;
  for (int64_t i = 0; i < s.positions; ++i) {
    score[i] = std::exp(score[i] - softmax_shift(best));
    sum += score[i];
  }
  for (int64_t d = 0; d < s.depth(); ++d) {
    float blend = 0.0f;
    for (int64_t i = 0; i < s.positions; ++i) {
      blend += score[i] * to_float(v[i * s.channels + d]);
    }
    store(s.positions == 0 ? 0.0f : blend / sum, output + d);
  }
}

// q [N, Q, C], k and v [N, S, C], mask_logits [N, Q, S], output [N, Q, C].
template <class T>
void forward_plain(const Shape& s, const T* q, const T* k, const T* v, const T* mask_logits,
                   T* output) {
  std::vector<float> score(static_cast<size_t>(s.positions));
  for (int64_t n = 0; n < s.batch; ++n) {
    const int64_t image = n * s.positions * s.channels;
    for (int64_t i = n * s.queries; i < (n + 1) * s.queries; ++i) {
      for (int64_t m = 0; m < s.heads; ++m) {
        const int64_t column = m * s.depth();
        attend(s, q + i * s.channels + column, k + image + column, v + image + column,
               mask_logits + i * s.positions, score.data(), output + i * s.channels + column);
      }
    }
  }
}

}  // namespace m2f::masked_attention
