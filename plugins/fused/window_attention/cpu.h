#pragma once

#include <cmath>
#include <vector>

#include "fused/window_attention/math.h"

// The op in plain loops: the specification in code. Slow on purpose; cpu_simd.h is the fast
// one.

namespace m2f::window_attention {

// One pixel of a window.
struct Token {
  const float* qkv;  // [3, M, D]
  float* output;     // [M, D]; null for padding
  int32_t region;
};

// One head of one query; position_bias and score are [T].
inline void attend(const Shape& s, const Token& query, const std::vector<Token>& keys,
                   int64_t head, const float* position_bias, float* score) {
  const float scale = 1.0f / std::sqrt(static_cast<float>(s.depth));
  const int64_t column = head * s.depth;
  float best = -INFINITY;
  for (size_t i = 0; i < keys.size(); ++i) {
    const float* q = query.qkv + column;
    const float* k = keys[i].qkv + s.channels() + column;
    float dot = position_bias[i];
    for (int64_t d = 0; d < s.depth; ++d) dot += q[d] * scale * k[d];
    score[i] = keys[i].region == query.region ? dot : dot + kHidden;
    best = at_least(score[i], best);
  }
  float sum = 0.0f;
  for (size_t i = 0; i < keys.size(); ++i) {
    score[i] = std::exp(score[i] - best);
    sum += score[i];
  }
  for (int64_t d = 0; d < s.depth; ++d) {
    float blend = 0.0f;
    for (size_t i = 0; i < keys.size(); ++i) {
      blend += score[i] * keys[i].qkv[2 * s.channels() + column + d];
    }
    query.output[column + d] = blend / sum;
  }
}

// qkv [N, H, W, 3, M, D], padding [3, M, D], position_bias [M, T, T], output [N, H, W, M, D].
inline void forward_plain(const Shape& s, const float* qkv, const float* padding,
                          const float* position_bias, float* output) {
  const int64_t t = s.tokens();
  std::vector<float> score(static_cast<size_t>(t));
  std::vector<Token> tokens(static_cast<size_t>(t));
  for (int64_t index = 0; index < s.batch * s.rows() * s.columns(); ++index) {
    const Window window = window_of(s, index);
    for (int64_t i = 0; i < t; ++i) {
      const int64_t y = i / s.window, x = i % s.window, pixel = window.pixel(y, x);
      Token& token = tokens[static_cast<size_t>(i)];
      token = {padding, nullptr, window.region(y, x)};
      if (pixel < 0) continue;
      token.qkv = qkv + pixel * 3 * s.channels();
      token.output = output + pixel * s.channels();
    }
    for (int64_t i = 0; i < s.heads * t; ++i) {
      const Token& query = tokens[static_cast<size_t>(i % t)];
      if (query.output == nullptr) continue;
      attend(s, query, tokens, i / t, position_bias + i * t, score.data());
    }
  }
}

}  // namespace m2f::window_attention
