#pragma once

#include "fused/group_norm/math.h"
#include "fused/moments.h"

namespace m2f::group_norm {

// Floats that are measured at a time: they stay in the first cache for the second look.
constexpr int64_t kPart = 4096;

// One call, split into tasks that any thread may run: first measure() for each, and when those
// are done, normalise(); with one slice a group, both at once. Values are added up by parts,
// whatever the slices are.
struct Work {
  Shape shape;
  float epsilon;
  bool is_rectified;
  const float* x;
  const float* weight;
  const float* bias;
  const float* coarse;  // null where there is none
  float* output;
  fused::Moments* moments;  // [N, groups, parts]

  M2F_HD_METHOD int64_t parts() const { return (shape.size() + kPart - 1) / kPart; }

  // Floats of one slice: all, where groups are enough for many threads and each stays in the
  // second cache until it is normalised.
  M2F_HD_METHOD int64_t slice() const {
    constexpr int64_t kEnough = 32;
    constexpr int64_t kCached = 32 * kPart;  // 512 KiB
    const bool is_whole = shape.all_groups() >= kEnough && shape.size() <= kCached;
    return is_whole ? shape.size() : 8 * kPart;
  }
  M2F_HD_METHOD int64_t slices() const { return (shape.size() + slice() - 1) / slice(); }
  M2F_HD_METHOD int64_t tasks() const { return shape.all_groups() * slices(); }

  // Floats of scratch memory that normalise() takes: a row, and one of half the width whose
  // ends repeat.
  M2F_HD_METHOD int64_t scratch() const {
    return coarse == nullptr ? 0 : shape.width + shape.width / 2 + 2;
  }
};

}  // namespace m2f::group_norm
