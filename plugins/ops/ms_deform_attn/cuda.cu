#include <cuda_runtime.h>

#include <type_traits>

#include "ops/ms_deform_attn/cuda.h"
#include "ops/ms_deform_attn/cuda_plain.cuh"
#include "ops/ms_deform_attn/cuda_tiled.cuh"

namespace m2f::ms_deform_attn {
namespace {

constexpr int64_t kMaxGridSide = 65535;  // y and z

int32_t divide_up(int32_t a, int32_t b) { return (a + b - 1) / b; }

// Whether the tiled kernels can do it.
bool fits_tiles(const Shape& s, const Format& format) {
  if (s.heads != kHeads || s.depth() != kDepth || s.levels != kLevels || s.points != kPoints) {
    return false;
  }
  int64_t tiles = 0;
  for (int32_t l = 0; l < kLevels; ++l) {
    const Level& level = s.level[l];
    if (level.height < 2 || level.width < 2) return false;  // window()
    tiles += int64_t{divide_up(level.width, kTileWidth)} * divide_up(level.height, 4);
  }
  // Tiles are counted in floats, bytes of an image in 32 bits.
  const int64_t image_bytes = s.positions * s.channels * width_of(format.value);
  return tiles < int64_t{1} << 21 && image_bytes < int64_t{1} << 32 && s.batch <= kMaxGridSide;
}

template <class Job>
cudaError_t launch(void (*kernel)(Job), const Job& job, dim3 grid, int threads,
                   cudaStream_t stream) {
  cudaLaunchConfig_t config = {};
  config.gridDim = grid;
  config.blockDim = dim3(static_cast<unsigned>(threads));
  config.stream = stream;
  return cudaLaunchKernelEx(&config, kernel, job);
}

struct Tensors {
  const void* value;
  const void* sampling;
  void* output;
};

template <class V, class T>
cudaError_t launch_plain(const Shape& s, float scale, const Tensors& tensors,
                         cudaStream_t stream) {
  const PlainJob job = {s, tensors.value, tensors.sampling, tensors.output, scale};
  const int64_t threads = s.batch * s.positions * s.channels;
  const int64_t blocks = (threads + kPlainThreads - 1) / kPlainThreads;
  if (blocks > INT32_MAX) return cudaErrorInvalidConfiguration;
  return launch(&plain_kernel<V, T>, job, dim3(static_cast<unsigned>(blocks)), kPlainThreads,
                stream);
}

template <class V, class T, int kTileHeight>
cudaError_t launch_tiled(const Shape& s, float scale, const Tensors& tensors,
                         cudaStream_t stream) {
  TiledJob job = {};
  int32_t tiles = 0;
  for (int32_t l = 0; l < kLevels; ++l) {
    const Level& level = s.level[l];
    TiledLevel& to = job.level[l];
    to.width = static_cast<float>(level.width);
    to.height = static_cast<float>(level.height);
    for (int32_t own = 0; own < kLevels; ++own) {
      to.per_column[own] = to.width / static_cast<float>(s.level[own].width);
      to.per_row[own] = to.height / static_cast<float>(s.level[own].height);
    }
    to.row_bytes = static_cast<uint32_t>(level.width * kHeads * kDepth * sizeof(V));
    to.start = static_cast<uint32_t>(level.start);
    to.first_tile = tiles;
    to.tiles_across = divide_up(level.width, kTileWidth);
    to.per_tiles_across = 1.0f / static_cast<float>(to.tiles_across);
    tiles += to.tiles_across * divide_up(level.height, kTileHeight);
  }
  job.positions = s.positions;
  job.value = tensors.value;
  job.sampling = tensors.sampling;
  job.output = tensors.output;
  job.value_scale = scale;
  const dim3 grid(static_cast<unsigned>(tiles), kHeads, static_cast<unsigned>(s.batch));
  return launch(&tiled_kernel<V, T, kTileHeight>, job, grid, kTiledThreads<V, kTileHeight>,
                stream);
}

template <class V, class T>
cudaError_t forward_as(const Shape& s, const Format& format, const Tensors& tensors,
                       CudaTactic tactic, cudaStream_t stream) {
  const float scale = format.value_scale;
  if (tactic == CudaTactic::kPlain || !fits_tiles(s, format)) {
    return launch_plain<V, T>(s, scale, tensors, stream);
  }
  if (tactic == CudaTactic::kTile8x4) {
    return launch_tiled<V, T, 4>(s, scale, tensors, stream);
  }
  return launch_tiled<V, T, 8>(s, scale, tensors, stream);
}

}  // namespace

cudaError_t forward_cuda(const Shape& shape, const Format& format, const void* value,
                         const void* sampling, void* output, int32_t tactic,
                         cudaStream_t stream) {
  if (tactic < 0 || tactic > kTactics) return cudaErrorInvalidValue;
  if (shape.batch == 0 || shape.channels == 0) return cudaSuccess;
  const auto run = [&](auto type) {
    using T = decltype(type);
    const Tensors tensors = {value, sampling, output};
    const auto chosen = static_cast<CudaTactic>(tactic);
    return format.value == Storage::kInt8
               ? forward_as<int8_t, T>(shape, format, tensors, chosen, stream)
               : forward_as<T, T>(shape, format, tensors, chosen, stream);
  };
  if (format.sampling == Storage::kFloat32) return run(float{});
  if (format.sampling == Storage::kFloat16) return run(Half{});
  return run(BFloat16{});
}

}  // namespace m2f::ms_deform_attn
