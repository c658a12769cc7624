#pragma once

#include "images/cuda_pixel.cuh"

// Work:    a thread is one value.
// Traffic: the values once.

namespace m2f::images::finite {

constexpr int kThreads = 256;

struct DeviceJob {
  const float* values;
  int64_t count;
  int64_t* found;
};

__global__ void __launch_bounds__(kThreads)
    count_kernel(const __grid_constant__ DeviceJob job) {
  const int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  const bool is_bad = i < job.count && !(fabsf(job.values[i]) < INFINITY);
  add_pixels(job.found, __popc(__ballot_sync(kAllLanes, is_bad)));
}

}  // namespace m2f::images::finite
