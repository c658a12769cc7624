#pragma once

#include "images/cuda_pixel.cuh"

// Work:    a warp is 32 pixels of a row of one mask, a block 8 rows of them.
// Traffic: the mask logits from caches; the bits once.
// Math:    math.h. A probability inside is from 1/2 to 1, a multiple of 2^-24: sums of them are
//          exact as integers, whatever their order.

namespace m2f::images::instance {

constexpr int kRows = 8;
constexpr int kThreads = kRows * kWarp;

struct DeviceJob {
  DevicePlan plan;
  Planes planes;
  uint8_t* bits;
  int64_t* total;
  int64_t* inside;
};

__global__ void __launch_bounds__(kThreads)
    binarise_kernel(const __grid_constant__ DeviceJob job) {
  const DevicePlan& plan = job.plan;
  const int32_t lane = static_cast<int32_t>(threadIdx.x) % kWarp;
  const int32_t y =
      static_cast<int32_t>(blockIdx.y) * kRows + static_cast<int32_t>(threadIdx.x) / kWarp;
  const int32_t x = static_cast<int32_t>(blockIdx.x) * kWarp + lane;
  const int64_t i = blockIdx.z;
  if (y >= plan.y.output) return;  // whole warps
  const bool exists = x < plan.x.output;
  const PixelTaps taps = taps_at(plan, y, min(x, plan.x.output - 1));
  const float* plane =
      job.planes.data + job.planes.index[i] * plan.y.mask * int64_t{plan.x.mask};
  const float logit = logit_at(plan, plane, taps);
  const bool is_inside = exists && logit > 0.0f;
  const unsigned word = __ballot_sync(kAllLanes, is_inside);

  int32_t part = is_inside ? static_cast<int32_t>(sigmoid(logit) * 0x1p24f) : 0;
#pragma unroll
  for (int lanes = 1; lanes < kWarp; lanes *= 2) {
    part += __shfl_xor_sync(kAllLanes, part, lanes);  // at most 2^29
  }
  add_pixels(job.total + i, part);
  add_pixels(job.inside + i, __popc(word));

  // Lanes 0 to 3 write a byte each: its first pixel in the highest bit.
  const int32_t row_bytes = (plan.x.output + 7) / 8;
  const int32_t byte = static_cast<int32_t>(blockIdx.x) * 4 + lane;
  if (lane < 4 && byte < row_bytes) {
    job.bits[(i * plan.y.output + y) * row_bytes + byte] =
        static_cast<uint8_t>(__brev(word) >> (24 - 8 * lane));
  }
}

}  // namespace m2f::images::instance
