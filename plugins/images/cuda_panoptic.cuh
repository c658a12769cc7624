#pragma once

#include "common/cuda/ptx.cuh"
#include "images/cuda_pixel.cuh"
#include "images/panoptic.h"

// Work:    a block is a tile of 8 rows of 32 pixels, a warp one of its rows. First its warps
// bound
//          the claim of every query on the tile: most can win no pixel of it, and their own
//          mask covers all or nothing. Then each thread compares the others at its pixel.
// Traffic: the mask elements behind a tile, twice at most, from caches; the codes once.
// Math:    math.h. As images/panoptic_simd.h on the CPU, whose results these are.

namespace m2f::images::panoptic {

constexpr int kRows = 8;
constexpr int kThreads = kRows * kWarp;

struct DeviceJob {
  DevicePlan plan;
  Planes planes;
  const float* scores;
  Rules rules;
  uint16_t* codes;
  int64_t* counts;  // [3, n]
};

// What is known of one query on the tile.
struct Claim {
  float upper;       // above what it claims anywhere
  float membership;  // 1: the whole tile is in its own mask, 0: nothing, 0.5: unknown
};

// Fills `claims`, and returns what somebody claims everywhere, for the whole block.
static __device__ float bound_claims(const DeviceJob& job, int32_t top, int32_t left,
                                     Claim* claims) {
  __shared__ int32_t floor;  // a float's bits: for numbers above 0, their order is that of ints
  if (threadIdx.x == 0) floor = 0;
  __syncthreads();
  const DevicePlan& plan = job.plan;
  const Reach rows = reach_of(plan.y, top, min(top + kRows, plan.y.output) - 1);
  const Reach columns = reach_of(plan.x, left, min(left + kWarp, plan.x.output) - 1);
  const float slack = slack_of_sum(1);
  for (int64_t i = threadIdx.x / kWarp; i < job.planes.count; i += kRows) {
    const float* plane =
        job.planes.data + job.planes.index[i] * plan.y.mask * int64_t{plan.x.mask};
    const Bounds logit = bounds_of(plane, plan.x.mask, rows, columns);
    const float least = sigmoid(logit.low) * (1.0f - slack);
    const float most = sigmoid(logit.high) * (1.0f + slack);
    const float from = least * job.scores[i];
    const float to = most * job.scores[i];
    const bool is_weighted = job.rules.is_weighted != 0;
    const bool covers_all = (is_weighted ? from : least) >= job.rules.threshold;
    const bool covers_none = (is_weighted ? to : most) < job.rules.threshold;
    if (threadIdx.x % kWarp == 0) {
      claims[i] = {to, covers_all ? 1.0f : covers_none ? 0.0f : 0.5f};
      atomicMax(&floor, __float_as_int(from));
    }
  }
  __syncthreads();
  return __int_as_float(floor);
}

// Counts what the queries have won of the warp's pixels, a query at a time.
static __device__ void count_won(const DeviceJob& job, int32_t code, unsigned existing) {
  unsigned left = existing;
  while (left != 0) {
    const int32_t query = __shfl_sync(kAllLanes, code, __ffs(static_cast<int>(left)) - 1) / 2;
    const unsigned won = __ballot_sync(kAllLanes, code / 2 == query) & existing;
    const unsigned own = __ballot_sync(kAllLanes, code == 2 * query + 1) & existing;
    add_pixels(job.counts + job.planes.count + query, __popc(won));
    add_pixels(job.counts + 2 * job.planes.count + query, __popc(own));
    left &= ~won;
  }
}

__global__ void __launch_bounds__(kThreads)
    compete_kernel(const __grid_constant__ DeviceJob job) {
  const DevicePlan& plan = job.plan;
  const int32_t top = static_cast<int32_t>(blockIdx.y) * kRows;
  const int32_t left = static_cast<int32_t>(blockIdx.x) * kWarp;
  Claim* claims = ptx::dynamic_shared<Claim>();
  const float floor = bound_claims(job, top, left, claims);

  const int32_t y = top + static_cast<int32_t>(threadIdx.x) / kWarp;
  const int32_t x = left + static_cast<int32_t>(threadIdx.x) % kWarp;
  const bool exists = y < plan.y.output && x < plan.x.output;
  const unsigned existing = __ballot_sync(kAllLanes, exists);
  const PixelTaps taps = taps_at(plan, min(y, plan.y.output - 1), min(x, plan.x.output - 1));
  float best = -1.0f;  // nobody claims less than nothing
  int32_t code = 0;
  for (int32_t i = 0; i < job.planes.count; ++i) {
    const Claim known = claims[i];
    const bool can_win = !(known.upper < floor);
    unsigned own = known.membership == 1.0f ? existing : 0u;
    if (can_win || known.membership == 0.5f) {
      const float* plane =
          job.planes.data + job.planes.index[i] * plan.y.mask * int64_t{plan.x.mask};
      const float probability =
          probability_at(plan, plane, taps, job.rules.as_probabilities != 0);
      const float claim = probability * job.scores[i];
      const bool is_own = (job.rules.is_weighted ? claim : probability) >= job.rules.threshold;
      own = __ballot_sync(kAllLanes, is_own) & existing;
      if (claim > best) {
        best = claim;
        code = 2 * i + (is_own ? 1 : 0);
      }
    }
    add_pixels(job.counts + i, __popc(own));
  }
  count_won(job, code, existing);
  if (exists) job.codes[int64_t{y} * plan.x.output + x] = static_cast<uint16_t>(code);
}

}  // namespace m2f::images::panoptic
