#include <cuda_runtime.h>

#include "images/cuda.h"
#include "images/cuda_finite.cuh"
#include "images/cuda_instance.cuh"
#include "images/cuda_panoptic.cuh"
#include "images/cuda_resize.cuh"
#include "images/cuda_semantic.cuh"

namespace m2f::images {
namespace {

constexpr int64_t kMaxGridSide = 65535;            // y and z
constexpr size_t kSharedBytes = size_t{40} << 10;  // dynamic, of a block on every architecture

DeviceAxis axis_of(const Geometry& size, int axis) {
  return {static_cast<float>(size.extent[axis]),
          static_cast<int32_t>(last_within(size.mask[axis], size.extent[axis])),
          static_cast<int32_t>(size.mask[axis]),
          static_cast<int32_t>(size.middle[axis]),
          static_cast<int32_t>(size.valid[axis]),
          static_cast<int32_t>(size.output[axis])};
}

DevicePlan plan_of(const Geometry& size) {
  const bool is_single = size.valid[0] == size.output[0] && size.valid[1] == size.output[1];
  return {axis_of(size, 0), axis_of(size, 1), is_single};
}

struct Grid {
  int64_t columns, rows, planes;
};

template <class Job>
cudaError_t launch(void (*kernel)(Job), const Job& job, const Grid& grid, int threads,
                   size_t shared_bytes, cudaStream_t stream) {
  if (grid.rows > kMaxGridSide || grid.planes > kMaxGridSide || shared_bytes > kSharedBytes) {
    return cudaErrorInvalidValue;
  }
  cudaLaunchConfig_t config = {};
  config.gridDim = dim3(static_cast<unsigned>(grid.columns), static_cast<unsigned>(grid.rows),
                        static_cast<unsigned>(grid.planes));
  config.blockDim = dim3(static_cast<unsigned>(threads));
  config.dynamicSmemBytes = shared_bytes;
  config.stream = stream;
  return cudaLaunchKernelEx(&config, kernel, job);
}

int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

cudaError_t clear(int64_t* counts, int64_t count, cudaStream_t stream) {
  return cudaMemsetAsync(counts, 0, static_cast<size_t>(count) * sizeof(int64_t), stream);
}

resize::DeviceJob job_of(const resize::DeviceSize& size, const uint8_t* image,
                         const int32_t* rows, const int32_t* columns, uint8_t* slot) {
  return {image,
          static_cast<int32_t>(size.image[0]),
          static_cast<int32_t>(size.image[1]),
          {rows, static_cast<int32_t>(size.stride[0])},
          {columns, static_cast<int32_t>(size.stride[1])},
          slot,
          static_cast<int32_t>(size.resized[0]),
          static_cast<int32_t>(size.resized[1]),
          static_cast<int32_t>(size.padded[0]),
          static_cast<int32_t>(size.padded[1])};
}

Grid grid_of(const resize::DeviceSize& size) {
  return {divide_up(size.padded[1], kWarp), divide_up(size.padded[0], resize::kRows), 1};
}

}  // namespace

cudaError_t compete_cuda(const Geometry& size, const Planes& planes, const float* scores,
                         const panoptic::Rules& rules, uint16_t* codes, int64_t* counts,
                         cudaStream_t stream) {
  const cudaError_t cleared = clear(counts, 3 * planes.count, stream);
  if (cleared != cudaSuccess) return cleared;
  const panoptic::DeviceJob job = {plan_of(size), planes, scores, rules, codes, counts};
  const Grid grid = {divide_up(size.output[1], kWarp),
                     divide_up(size.output[0], panoptic::kRows), 1};
  return launch(&panoptic::compete_kernel, job, grid, panoptic::kThreads,
                static_cast<size_t>(planes.count) * sizeof(panoptic::Claim), stream);
}

cudaError_t classify_cuda(const Geometry& size, const Planes& planes, const float* weights,
                          int64_t classes, bool sums_first, int32_t* labels,
                          cudaStream_t stream) {
  const semantic::DeviceJob job = {
      plan_of(size), planes, weights, static_cast<int32_t>(classes), sums_first, labels};
  const Grid grid = {divide_up(size.output[1], kWarp), size.output[0], 1};
  return launch(&semantic::classify_kernel, job, grid, semantic::kThreads,
                static_cast<size_t>(planes.count) * kWarp * sizeof(float), stream);
}

cudaError_t binarise_cuda(const Geometry& size, const Planes& planes, uint8_t* bits,
                          int64_t* total, int64_t* inside, cudaStream_t stream) {
  cudaError_t cleared = clear(total, planes.count, stream);
  if (cleared == cudaSuccess) cleared = clear(inside, planes.count, stream);
  if (cleared != cudaSuccess || planes.count == 0) return cleared;
  const instance::DeviceJob job = {plan_of(size), planes, bits, total, inside};
  const Grid grid = {divide_up(size.output[1], kWarp),
                     divide_up(size.output[0], instance::kRows), planes.count};
  return launch(&instance::binarise_kernel, job, grid, instance::kThreads, 0, stream);
}

cudaError_t count_not_finite_cuda(const float* values, int64_t count, int64_t* found,
                                  cudaStream_t stream) {
  const cudaError_t cleared = clear(found, 1, stream);
  if (cleared != cudaSuccess || count == 0) return cleared;
  const finite::DeviceJob job = {values, count, found};
  const Grid grid = {divide_up(count, finite::kThreads), 1, 1};
  return launch(&finite::count_kernel, job, grid, finite::kThreads, 0, stream);
}

cudaError_t resize_cuda(const resize::DeviceSize& size, const uint8_t* image,
                        const int32_t* rows, const int32_t* columns, bool rows_first,
                        uint8_t* slot, cudaStream_t stream) {
  const auto kernel = rows_first ? &resize::rows_first_kernel : &resize::columns_first_kernel;
  return launch(kernel, job_of(size, image, rows, columns, slot), grid_of(size),
                resize::kThreads, 0, stream);
}

cudaError_t resize_nearest_cuda(const resize::DeviceSize& size, const uint8_t* image,
                                uint8_t* slot, cudaStream_t stream) {
  return launch(&resize::nearest_four_kernel, job_of(size, image, nullptr, nullptr, slot),
                grid_of(size), resize::kThreads, 0, stream);
}

}  // namespace m2f::images
