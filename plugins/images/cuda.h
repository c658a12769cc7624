#pragma once

#include <cuda_runtime_api.h>

#include "images/panoptic.h"
#include "images/resize.h"

// What is done to images before the network and after it, on CUDA. Pointers are the device's;
// sizes have been checked as the CPU does (plan.h, resize.cc), and logits are finite. Each
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

namespace resize {

// Sizes, each [height, width]. Plain, for the C interface.
struct DeviceSize {
  int64_t image[2];
  int64_t resized[2];
  int64_t padded[2];
  int64_t stride[2];  // weights_stride of both axes, where they have tables
};

}  // namespace resize

// As resize::resize: fills all of the slot. Antialiased with the tables of both axes
// (weights.h), else from the four nearest pixels.
cudaError_t resize_cuda(const resize::DeviceSize& size, const uint8_t* image,
                        const int32_t* rows, const int32_t* columns, bool rows_first,
                        uint8_t* slot, cudaStream_t stream);
cudaError_t resize_nearest_cuda(const resize::DeviceSize& size, const uint8_t* image,
                                uint8_t* slot, cudaStream_t stream);

}  // namespace m2f::images
