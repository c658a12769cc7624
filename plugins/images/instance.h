#pragma once

#include "images/geometry.h"

// Instances: each query's mask where its logit is positive, and how sure it is there.

namespace m2f::images::instance {

// A task is one strip of tiles of one plane.
struct Work {
  Plan plan;
  Planes planes;
  uint8_t* bits;    // [n, H, ceil(W / 8)], the first pixel in the highest bit
  double* total;    // [n, strips]: probabilities of the pixels inside, summed
  int64_t* inside;  // [n, strips]: these pixels

  M2F_HD_METHOD int64_t row_bytes() const { return (plan.size.output[1] + 7) / 8; }
  M2F_HD_METHOD int64_t scratch() const {
    return kTileScratch + 2 * (plan.size.mask[1] + kPad) + 2 * (plan.column_tiles + kPad);
  }
};

}  // namespace m2f::images::instance
