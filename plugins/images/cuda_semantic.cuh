#pragma once

#include "common/cuda/ptx.cuh"
#include "images/cuda_pixel.cuh"

// Work:    a block is 32 pixels of a row. Its warps work out the queries' probabilities there,
// into
//          shared memory; then each sums some of the classes, eight at a time, and the best of
//          all is the label, the first of equals.
// Traffic: the mask logits from caches, the weights from the first one; the labels once.
// Math:    math.h. Summing and resizing commute but for rounding, so that the convention that
//          resizes sums is done as the one that resizes probabilities.

namespace m2f::images::semantic {

constexpr int kWarps = 8;
constexpr int kThreads = kWarps * kWarp;
constexpr int kTogether = 8;  // classes

struct DeviceJob {
  DevicePlan plan;
  Planes planes;
  const float* weights;  // [n, K]
  int32_t classes;
  bool of_probabilities;
  int32_t* labels;
};

struct Best {
  float score;
  int32_t label;
};

// The best of the classes that this warp sums, for the pixel of this lane.
static __device__ __forceinline__ Best best_of(const DeviceJob& job,
                                               const float* probabilities) {
  const int32_t lane = static_cast<int32_t>(threadIdx.x) % kWarp;
  Best best = {-1.0f, INT32_MAX};
  for (int32_t k = static_cast<int32_t>(threadIdx.x) / kWarp * kTogether; k < job.classes;
       k += kWarps * kTogether) {
    float sum[kTogether] = {};
#pragma unroll 1  // several queries at once would want more registers than there are
    for (int32_t i = 0; i < job.planes.count; ++i) {
      const float probability = probabilities[i * kWarp + lane];
      const float* weights = job.weights + int64_t{i} * job.classes + k;
#pragma unroll
      for (int j = 0; j < kTogether; ++j) {
        if (k + j < job.classes) sum[j] += probability * __ldg(weights + j);
      }
    }
#pragma unroll
    for (int j = 0; j < kTogether; ++j) {
      if (k + j < job.classes && sum[j] > best.score) best = {sum[j], k + j};
    }
  }
  return best;
}

// Four blocks fill what registers there are: asked for more, ptxas spills for sm_120.
__global__ void __launch_bounds__(kThreads, 4)
    classify_kernel(const __grid_constant__ DeviceJob job) {
  __shared__ Best found[kWarps][kWarp];
  float* probabilities = ptx::dynamic_shared<float>();  // [n, 32]
  const DevicePlan& plan = job.plan;
  const int32_t warp = static_cast<int32_t>(threadIdx.x) / kWarp;
  const int32_t lane = static_cast<int32_t>(threadIdx.x) % kWarp;
  const int32_t y = static_cast<int32_t>(blockIdx.y);
  const int32_t x = static_cast<int32_t>(blockIdx.x) * kWarp + lane;
  const PixelTaps taps = taps_at(plan, y, min(x, plan.x.output - 1));
  for (int32_t i = warp; i < job.planes.count; i += kWarps) {
    const float* plane =
        job.planes.data + job.planes.index[i] * plan.y.mask * int64_t{plan.x.mask};
    probabilities[i * kWarp + lane] = probability_at(plan, plane, taps, job.of_probabilities);
  }
  __syncthreads();
  found[warp][lane] = best_of(job, probabilities);
  __syncthreads();
  if (warp != 0 || x >= plan.x.output) return;
  Best best = found[0][lane];
  for (int w = 1; w < kWarps; ++w) {
    const Best other = found[w][lane];
    const bool is_first = other.score == best.score && other.label < best.label;
    if (other.score > best.score || is_first) best = other;
  }
  job.labels[int64_t{y} * plan.x.output + x] = best.label;
}

}  // namespace m2f::images::semantic
