#pragma once

#include "images/geometry.h"

// Semantic: each pixel's class is the one with the largest sum, over queries, of class times
// mask probability. Where that sum is formed, before the second resize or after it, the
// conventions disagree.

namespace m2f::images::semantic {

constexpr int64_t kClasses = 6;  // of a product's block: rows that share what is loaded
constexpr int64_t kPanel = 64;   // its pixels

// A task is one strip of tiles.
struct Work {
  Plan plan;
  Planes planes;         // all queries
  int64_t classes;       // K
  const float* weights;  // [Q, padded(K)] class probabilities, zeros at the end
  const float* peaks;    // [Q] the largest class probability of each
  bool sums_first;       // the second resize is of sums
  int32_t* labels;       // [H, W]

  M2F_HD_METHOD int64_t blocks() const { return (classes + kClasses - 1) / kClasses; }
  M2F_HD_METHOD int64_t resizes_sums() const { return sums_first && !plan.is_single; }

  // Pixels of a tile at which sums are formed, up to a whole panel.
  M2F_HD_METHOD int64_t pixels() const {
    const int64_t most = resizes_sums() ? plan.middle_pixels : kPanel;
    return (most + kPanel - 1) / kPanel * kPanel;
  }

  // Floats that the stretched rows of one plane take; not a power of two, lest all planes
  // meet in the same sets of a cache.
  M2F_HD_METHOD int64_t rows() const { return 2 * kTileRows * kTileColumns + kPad; }

  M2F_HD_METHOD int64_t scratch() const {
    const int64_t q = padded(planes.count), k = padded(classes);
    const int64_t bounds = 2 * (plan.column_tiles + 1) * q + 2 * (plan.size.mask[1] + kPad);
    const int64_t sums = planes.count * pixels() + kClasses * pixels();
    const int64_t kept = resizes_sums() ? 0 : planes.count * rows();
    return kTileScratch + bounds + q + 2 * k + sums + kept +
           blocks() * kClasses * planes.count + 2 * kTileRows * kTileColumns;
  }
};

}  // namespace m2f::images::semantic
