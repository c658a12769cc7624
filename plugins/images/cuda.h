#pragma once

#include <cuda_runtime_api.h>

#include "images/panoptic.h"

// Post-processing on CUDA, from the network's masks where they lie. Pointers are the device's;
// sizes have been checked as the CPU's plan does (plan.h), and logits are finite. Each
// enqueues, and returns what the launches said.

namespace m2f::images {

// As panoptic::compete: `codes` [H, W], and `counts` [3, n] (own, won, both), set here.
cudaError_t compete_cuda(const Geometry& size, const Planes& planes, const float* scores,
                         const panoptic::Rules& rules, uint16_t* codes, int64_t* counts,
                         cudaStream_t stream);

// As semantic::classify: `labels` [H, W] from `weights` [n, K], class probabilities.
cudaError_t classify_cuda(const Geometry& size, const Planes& planes, const float* weights,
                          int64_t classes, bool sums_first, int32_t* labels,
                          cudaStream_t stream);

// As instance::binarise: `bits` [n, H, ceil(W / 8)]; of the pixels inside, `inside` [n] their
// number and `total` [n] the sum of their probabilities, in units of 2^-24. Both are set here.
cudaError_t binarise_cuda(const Geometry& size, const Planes& planes, uint8_t* bits,
                          int64_t* total, int64_t* inside, cudaStream_t stream);

// Sets `found` to how many of the values are NaN or infinite.
cudaError_t count_not_finite_cuda(const float* values, int64_t count, int64_t* found,
                                  cudaStream_t stream);

}  // namespace m2f::images
