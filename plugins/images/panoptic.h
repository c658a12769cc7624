#pragma once

#include "images/geometry.h"

// Panoptic: queries compete for every pixel. What is made of the result, which query wins
// enough to become a segment, is decided by the caller.

namespace m2f::images::panoptic {

struct Rules {
  float threshold;           // from where on a pixel belongs to a query's own mask...
  int32_t is_weighted;       // ... by class times mask probability, not by the latter alone
  int32_t as_probabilities;  // the second resize is of probabilities
};

// A task is one strip of tiles.
struct Work {
  Plan plan;
  Planes planes;
  const float* scores;  // class probability of each plane, then zeros up to a vector's end
  Rules rules;
  uint16_t* codes;  // [H, W]: 2 * winner + whether the pixel is in the winner's own mask
  int64_t* own;     // [n] pixels of each own mask
  int64_t* won;     // [n] pixels won
  int64_t* both;    // [n] of these, in the own mask

  M2F_HD_METHOD int64_t scratch() const {
    const int64_t tiles = 2 * (plan.column_tiles + 1) * padded(planes.count);
    return kTileScratch + tiles + 2 * (plan.size.mask[1] + kPad) + 2 * kTileRows * kTileColumns;
  }
};

}  // namespace m2f::images::panoptic
