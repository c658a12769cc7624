#include <cuda_runtime.h>

#include <algorithm>
#include <cmath>
#include <type_traits>

#include "ops/masked_attention/cuda.h"
#include "ops/masked_attention/cuda_mma.cuh"
#include "ops/masked_attention/cuda_plain.cuh"

namespace m2f::masked_attention {
namespace {

constexpr float kLog2e = 1.4426950408889634f;
constexpr int64_t kAlignment = 256;  // of the pieces of the workspace, bytes

int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }
int64_t aligned(int64_t bytes) { return divide_up(bytes, kAlignment) * kAlignment; }

int64_t row_bytes(const Shape& s) { return divide_up(s.positions, 2 * kTileKeys) * 16; }
int64_t tiles(const Shape& s) { return row_bytes(s) / static_cast<int64_t>(sizeof(uint2)); }

// Blocks of one part: heads times tiles of queries.
int64_t groups(const Shape& s) { return s.batch * s.heads * divide_up(s.queries, kBlockRows); }

// A part has an even number of tiles: mask bits are read by the 16 bytes. The tactics are sizes
// of parts; 0 cuts so that there are about two blocks for each of a large GPU's
// multiprocessors.
constexpr int64_t kPairsOfTactic[] = {0, 2, 4, kPartTiles / 2};
static_assert(sizeof kPairsOfTactic / sizeof *kPairsOfTactic == kTactics + 1, "one for each");
constexpr int64_t kBlocksWanted = 256;

void cut(const Shape& s, int32_t tactic, Job* job) {
  const int64_t pairs = tiles(s) / 2;
  int64_t size = kPairsOfTactic[tactic];
  if (size == 0) {
    const int64_t parts = std::max<int64_t>(1, kBlocksWanted / groups(s));
    size = std::clamp<int64_t>(pairs / parts, 1, kPartTiles / 2);
  }
  job->part_tiles = static_cast<int32_t>(2 * size);
  job->parts = static_cast<int32_t>(divide_up(pairs, size));
}

// At least [N, Q, M] * parts for this shape and all smaller ones, for every tactic. Of tactic
// 0: rounding `size` down makes less than twice as many parts.
int64_t most_slots(const Shape& s) {
  const int64_t pairs = tiles(s) / 2;
  const int64_t largest_parts = groups(s) * divide_up(pairs, kPartTiles / 2);
  const int64_t chosen = kBlockRows * 2 * std::max(kBlocksWanted, largest_parts);
  const int64_t smallest_parts = divide_up(pairs, kPairsOfTactic[1]);
  return std::max(chosen, s.batch * s.queries * s.heads * smallest_parts);
}

struct Grid {
  int64_t x, y, z;
};

template <class... Parameters, class... Arguments>
cudaError_t launch(void (*kernel)(Parameters...), const Grid& grid, int64_t threads,
                   cudaStream_t stream, const Arguments&... arguments) {
  if (std::max({grid.x, grid.y, grid.z}) > INT32_MAX) return cudaErrorInvalidConfiguration;
  cudaLaunchConfig_t config = {};
  config.gridDim = dim3(static_cast<unsigned>(grid.x), static_cast<unsigned>(grid.y),
                        static_cast<unsigned>(grid.z));
  config.blockDim = dim3(static_cast<unsigned>(threads));
  config.stream = stream;
  return cudaLaunchKernelEx(&config, kernel, arguments...);
}

template <class T>
cudaError_t see(const Job& job, const T* mask_logits, uint8_t* seen, cudaStream_t stream) {
  const Shape& s = job.shape;
  const int64_t threads =
      std::min<int64_t>(kSeeThreads, divide_up(job.row_bytes, kWarp) * kWarp);
  const auto kernel = s.positions % kSeeKeys == 0 ? see_kernel<T, true> : see_kernel<T, false>;
  return launch(kernel, {s.batch * s.queries, 1, 1}, threads, stream, mask_logits, seen,
                s.positions, job.row_bytes);
}

template <class T>
bool fits_tensor_cores(const Job& job) {
  if (job.depth != kMmaDepth) return false;
  if constexpr (std::is_same_v<T, __half>) return true;
  // Turing's tensor cores have no bfloat16.
  int device = 0;
  int major = 0;
  return cudaGetDevice(&device) == cudaSuccess &&
         cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device) ==
             cudaSuccess &&
         major >= 8;
}

template <class T>
cudaError_t attend(const Job& job, const T* q, const T* k, const T* v, cudaStream_t stream) {
  const Shape& s = job.shape;
  if constexpr (!std::is_same_v<T, float>) {
    if (fits_tensor_cores<T>(job)) {
      // As few warps as the queries allow: 100 of them are 7 warps, not 8.
      const int64_t blocks = divide_up(s.queries, kBlockRows);
      const int64_t warps = divide_up(divide_up(s.queries, blocks), kMmaRows);
      return launch(attend_mma_kernel<T>, {job.parts, s.heads, s.batch * blocks}, warps * kWarp,
                    stream, job, q, k, v);
    }
  }
  const int64_t blocks = divide_up(s.batch * s.queries, kPlainWarps);
  return launch(attend_plain_kernel<T>, {job.parts, s.heads, blocks}, kPlainWarps * kWarp,
                stream, job, q, k, v);
}

template <class T>
cudaError_t forward_as(const Job& job, const void* q, const void* k, const void* v,
                       const void* mask_logits, void* output, uint8_t* seen,
                       cudaStream_t stream) {
  const Shape& s = job.shape;
  cudaError_t error = see(job, static_cast<const T*>(mask_logits), seen, stream);
  if (error != cudaSuccess) return error;
  error = attend(job, static_cast<const T*>(q), static_cast<const T*>(k),
                 static_cast<const T*>(v), stream);
  if (error != cudaSuccess) return error;
  const int64_t blocks = divide_up(s.batch * s.queries * s.heads, kCombineThreads / kWarp);
  return launch(combine_kernel<T>, {blocks, 1, 1}, kCombineThreads, stream, job,
                static_cast<T*>(output));
}

}  // namespace

size_t workspace_bytes(const Shape& shape) {
  const int64_t seen = aligned(shape.batch * shape.queries * row_bytes(shape));
  const int64_t slots = most_slots(shape);
  return static_cast<size_t>(seen + aligned(slots * static_cast<int64_t>(sizeof(float2))) +
                             slots * shape.depth() * static_cast<int64_t>(sizeof(float)));
}

cudaError_t forward_cuda(const Shape& shape, Storage storage, const void* q, const void* k,
                         const void* v, const void* mask_logits, void* output, void* workspace,
                         int32_t tactic, cudaStream_t stream) {
  const int64_t rows = shape.batch * shape.queries;
  if (rows == 0 || shape.channels == 0) return cudaSuccess;
  if (tactic < 0 || tactic > kTactics) return cudaErrorInvalidValue;
  if (shape.positions == 0) {  // nothing to see: zeros, as a product over no positions is
    const size_t width = storage == Storage::kFloat32 ? 4 : 2;
    return cudaMemsetAsync(output, 0, static_cast<size_t>(rows * shape.channels) * width,
                           stream);
  }
  // The kernels count positions and channels in 32 bits.
  constexpr int64_t kMost = INT32_MAX - 2 * kTileKeys;
  if (shape.positions > kMost || shape.channels > kMost) return cudaErrorInvalidValue;
  Job job = {};
  job.shape = shape;
  job.depth = static_cast<int32_t>(shape.depth());
  job.exponent_scale = kLog2e / std::sqrt(static_cast<float>(job.depth));
  job.row_bytes = static_cast<int32_t>(row_bytes(shape));
  cut(shape, tactic, &job);
  auto* seen = static_cast<uint8_t*>(workspace);
  uint8_t* statistics = seen + aligned(rows * job.row_bytes);
  job.seen = seen;
  job.statistics = reinterpret_cast<float2*>(statistics);
  const int64_t slots = rows * shape.heads * job.parts;
  job.blend = reinterpret_cast<float*>(statistics +
                                       aligned(slots * static_cast<int64_t>(sizeof(float2))));
  switch (storage) {
    case Storage::kFloat32:
      return forward_as<float>(job, q, k, v, mask_logits, output, seen, stream);
    case Storage::kFloat16:
      return forward_as<__half>(job, q, k, v, mask_logits, output, seen, stream);
    case Storage::kBFloat16:
      return forward_as<__nv_bfloat16>(job, q, k, v, mask_logits, output, seen, stream);
    default:
      return cudaErrorInvalidValue;
  }
}

}  // namespace m2f::masked_attention
