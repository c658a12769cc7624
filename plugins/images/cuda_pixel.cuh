#pragma once

#include "common/storage.h"
#include "images/geometry.h"

// One mask at one pixel of the output on CUDA: both resizes, element by element, with the taps
// and roundings of math.h. Neighbours read the same few mask elements, which the first cache
// serves.

namespace m2f::images {

constexpr unsigned kAllLanes = 0xFFFFFFFFu;
constexpr int kWarp = 32;

struct DeviceAxis {
  float extent;
  int32_t last;  // element of the mask that takes part
  int32_t mask;
  int32_t middle;
  int32_t valid;
  int32_t output;

  // Which middle elements an output element is made of, and which mask elements one of these.
  M2F_HD_METHOD Tap second(int32_t i) const {
    if (valid == output) return {i, i, 1.0f, 0.0f};
    return linear_tap(i, static_cast<float>(valid), output, valid - 1);
  }
  M2F_HD_METHOD Tap first(int32_t i) const { return linear_tap(i, extent, middle, last); }
};

struct DevicePlan {
  DeviceAxis y;
  DeviceAxis x;
  bool is_single;  // the second resize changes nothing
};

// What all masks share at one pixel.
struct PixelTaps {
  Tap row, column;  // of the second resize
  Tap mask_row[2];  // of the first, for both of each
  Tap mask_column[2];
};

M2F_HD PixelTaps taps_at(const DevicePlan& plan, int32_t y, int32_t x) {
  const Tap row = plan.y.second(y);
  const Tap column = plan.x.second(x);
  return {row,
          column,
          {plan.y.first(row.low), plan.y.first(row.high)},
          {plan.x.first(column.low), plan.x.first(column.high)}};
}

M2F_HD float between(const Tap& tap, float low, float high) {
  return interpolate(low, high, tap.low_weight, tap.high_weight);
}

// After the first resize, at one middle pixel.
M2F_HD float middle_at(const float* plane, int32_t width, const Tap& row, const Tap& column) {
  const float* upper = plane + int64_t{row.low} * width;
  const float* lower = plane + int64_t{row.high} * width;
  return between(row, between(column, upper[column.low], upper[column.high]),
                 between(column, lower[column.low], lower[column.high]));
}

// The mask's probability at the pixel; the second resize is of probabilities or of logits.
template <bool kOfProbabilities>
M2F_HD float resized(const DevicePlan& plan, const float* plane, const PixelTaps& taps) {
  float rows[2];
  for (int i = 0; i < 2; ++i) {
    float corner[2];
    for (int j = 0; j < 2; ++j) {
      const float logit = middle_at(plane, plan.x.mask, taps.mask_row[i], taps.mask_column[j]);
      corner[j] = kOfProbabilities ? sigmoid(logit) : logit;
    }
    rows[i] = between(taps.column, corner[0], corner[1]);
  }
  return between(taps.row, rows[0], rows[1]);
}

M2F_HD float logit_at(const DevicePlan& plan, const float* plane, const PixelTaps& taps) {
  if (plan.is_single) {
    return middle_at(plane, plan.x.mask, taps.mask_row[0], taps.mask_column[0]);
  }
  return resized<false>(plan, plane, taps);
}

M2F_HD float probability_at(const DevicePlan& plan, const float* plane, const PixelTaps& taps,
                            bool of_probabilities) {
  if (of_probabilities && !plan.is_single) return resized<true>(plan, plane, taps);
  return sigmoid(logit_at(plan, plane, taps));
}

// Elements [from, to] of the mask behind output elements [begin, end].
struct Reach {
  int32_t from, to;
};

M2F_HD Reach reach_of(const DeviceAxis& axis, int32_t begin, int32_t end) {
  return {axis.first(axis.second(begin).low).low, axis.first(axis.second(end).high).high};
}

// Bounds of a mask's logits behind a tile, worked out by the warp together.
static __device__ __forceinline__ Bounds bounds_of(const float* plane, int32_t width,
                                                   const Reach& rows, const Reach& columns) {
  Bounds found = {INFINITY, -INFINITY};
  for (int32_t y = rows.from; y <= rows.to; ++y) {
    for (int32_t x = columns.from + static_cast<int32_t>(threadIdx.x) % kWarp; x <= columns.to;
         x += kWarp) {
      const float logit = plane[int64_t{y} * width + x];
      found = {fminf(found.low, logit), fmaxf(found.high, logit)};
    }
  }
#pragma unroll
  for (int lanes = 1; lanes < kWarp; lanes *= 2) {
    found.low = fminf(found.low, __shfl_xor_sync(kAllLanes, found.low, lanes));
    found.high = fmaxf(found.high, __shfl_xor_sync(kAllLanes, found.high, lanes));
  }
  return widened(found);
}

// Adds `pixels` of a warp to a count, which lane 0 does for all.
static __device__ __forceinline__ void add_pixels(int64_t* to, int64_t pixels) {
  if (pixels == 0 || threadIdx.x % kWarp != 0) return;
  atomicAdd(reinterpret_cast<unsigned long long*>(to), static_cast<unsigned long long>(pixels));
}

}  // namespace m2f::images
