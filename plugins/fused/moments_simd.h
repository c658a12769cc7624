#pragma once

#include "common/simd.h"
#include "fused/moments.h"

// Mean and variance as LayerNorm and GroupNorm take them, for one instruction set per
// inclusion.

namespace m2f::fused {
namespace {

// Four sums, so that additions do not wait for each other; put together in a fixed order.
struct Sum {
  Floats part[4] = {};
  float last = 0.0f;

  M2F_HD_METHOD void add(Floats values, int k) { part[k] += values; }
  M2F_HD_METHOD void add(float value, int) { last += value; }
  M2F_HD_METHOD float total() const {
    return m2f::total((part[0] + part[1]) + (part[2] + part[3])) + last;
  }
};

// use(values, k) for all of them: vectors, each for the k-th sum, and single ones at the end.
template <class Use>
M2F_HD void for_each_of(const float* x, int64_t count, const Use& use) {
  int64_t i = 0;
  for (; i + 4 * kLanes <= count; i += 4 * kLanes) {
    for (int k = 0; k < 4; ++k) use(load(x + i + k * kLanes), k);
  }
  for (; i + kLanes <= count; i += kLanes) use(load(x + i), 0);
  for (; i < count; ++i) use(x[i], 0);
}

// Two passes, the second over the first cache if `count` is small. Differences from a mean that
// was rounded are exact wherever they are small against it (Sterbenz), and their own mean is
// what rounding took from it; so neither a large mean nor the first pass's error reaches the
// result (Chan, Golub and LeVeque 1983: the corrected two-pass algorithm).
M2F_HD Moments moments(const float* x, int64_t count) {
  const float share = 1.0f / static_cast<float>(count);
  Sum sum;
  for_each_of(x, count, [&](auto value, int k) { sum.add(value, k); });
  const float shift = sum.total() * share;
  Sum differences;
  Sum squares;
  for_each_of(x, count, [&](auto value, int k) {
    const auto difference = value - shift;
    differences.add(difference, k);
    squares.add(difference * difference, k);
  });
  const float rest = differences.total() * share;
  return {shift, rest, squares.total() - differences.total() * rest};
}

}  // namespace
}  // namespace m2f::fused
