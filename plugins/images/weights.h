#pragma once

#include <vector>

#include "images/resize.h"

// Pillow's bilinear weights, made here for every backend: in double, rounded to fixed point.

namespace m2f::images::resize {

// Weights of one axis, with what owns them.
struct OwnedWeights {
  int64_t stride = 0;
  std::vector<int32_t> start, count, weight;

  Weights view() const {
    return {stride, start.data(), count.data(), weight.empty() ? nullptr : weight.data()};
  }
};

// Most weights of any output element.
int64_t weights_stride(int64_t source, int64_t target);

// Of an axis whose size stays, each element is itself.
OwnedWeights antialiased_weights(int64_t source, int64_t target);

// The same as a table [target, 2 + stride], for a device: of each output element its start, its
// count, its weights.
void write_table(int64_t source, int64_t target, int32_t* table);

}  // namespace m2f::images::resize
