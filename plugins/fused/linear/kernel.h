#pragma once

#include "fused/linear/math.h"

namespace m2f::linear {

// The weight as the kernels read it: panels of as many columns as they take at once, and within
// a panel all rows, [K, width]. The last panel is as narrow as whole vectors allow, filled up
// with zeros, so that the one with the first column n starts at n * K.
struct Packing {
  int64_t inner;    // K
  int64_t columns;  // N
  int64_t panel;    // columns of one, the instruction set's choice
  int64_t lanes;

  M2F_HD_METHOD int64_t panels() const { return (columns + panel - 1) / panel; }
  M2F_HD_METHOD int64_t size() const {  // floats
    return (columns + lanes - 1) / lanes * lanes * inner;
  }
};

// One call, split into tasks that any thread may run: each a block of rows by a block of
// columns of the output.
struct Work {
  Shape shape;
  Activation activation;
  const float* x;         // [M, K]
  const float* packed;    // see Packing
  const float* bias;      // [N]
  const float* residual;  // [M, N], or null
  float* output;          // [M, N]

  int64_t block_rows;
  int64_t block_columns;  // whole panels

  M2F_HD_METHOD int64_t column_blocks() const {
    return (shape.columns + block_columns - 1) / block_columns;
  }
  M2F_HD_METHOD int64_t tasks() const {
    return (shape.rows + block_rows - 1) / block_rows * column_blocks();
  }
};

}  // namespace m2f::linear
