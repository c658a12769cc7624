#pragma once

#include "fused/window_attention/math.h"

namespace m2f::window_attention {

constexpr int64_t kQueries = 7;  // computed together
constexpr int64_t kHeads = 6;    // in one task, at most

// One call, split into tasks that any thread may run, in any order: some heads of one window.
struct Work {
  Shape shape;
  const float* qkv;            // [N, H, W, 3, M, D]
  const float* padding;        // [3, M, D]
  const float* position_bias;  // [M, T, T]
  float* output;               // [N, H, W, M, D]

  int64_t keys;    // T rounded up to whole vectors
  int64_t padded;  // D rounded up to whole vectors

  M2F_HD_METHOD int64_t groups() const { return (shape.heads + kHeads - 1) / kHeads; }
  M2F_HD_METHOD int64_t group_size() const { return (shape.heads + groups() - 1) / groups(); }
  M2F_HD_METHOD int64_t tasks() const {
    return shape.batch * shape.rows() * shape.columns() * groups();
  }

  // T rounded up to whole blocks of queries.
  M2F_HD_METHOD int64_t queries() const {
    return (shape.tokens() + kQueries - 1) / kQueries * kQueries;
  }

  // Floats of scratch memory that one task needs; cpu_simd.h divides it up.
  M2F_HD_METHOD int64_t scratch() const {
    const int64_t packed = (keys + queries()) * shape.depth + shape.tokens() * padded;
    return packed + (kQueries + 1) * keys + 2 * shape.tokens() + queries();
  }
};

}  // namespace m2f::window_attention
