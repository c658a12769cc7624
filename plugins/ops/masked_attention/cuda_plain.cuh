#pragma once

#include "ops/masked_attention/cuda.cuh"

// Masked attention without tensor cores: float32 storage, heads of any width, any alignment.
// Made to be right, not fast.
//
// Work: a warp owns one head of one query and one part of the keys, 32 keys at a time: a lane
//       computes one key's score, then 32 of the channels of every seen key's value. A wide
//       head takes several passes, each with the scores anew.

namespace m2f::masked_attention {

constexpr int kPlainWarps = 8;   // of a block: as many queries, which read the same keys
constexpr int kPlainChunks = 4;  // of 32 channels, per pass

template <class T>
__device__ __forceinline__ float dot(const T* a, const T* b, int64_t count) {
  float sum = 0.0f;
#pragma unroll 4
  for (int64_t d = 0; d < count; ++d) sum += number_from(a[d]) * number_from(b[d]);
  return sum;
}

// One pass over the keys [begin, end), of channels [first, first + 128) of the head.
template <class T>
__device__ __forceinline__ float2 attend_part(const Job& job, const T* q, const T* k,
                                              const T* v, const uint32_t* seen, int64_t begin,
                                              int64_t end, int64_t first,
                                              float (&blend)[kPlainChunks]) {
  const int lane = threadIdx.x % kWarp;
  const int64_t depth = job.depth;
  const int64_t channels = job.shape.channels;
  const float scale = job.exponent_scale;
  float best = -INFINITY;
  float weight = 0.0f;
  for (int64_t key = begin; key < end; key += kWarp) {
    const uint32_t word = seen[key / kWarp];  // positions that do not exist are not seen
    if (word == 0) continue;
    const bool is_seen = word >> lane & 1u;
    const float score = is_seen ? dot(q, k + (key + lane) * channels, depth) : -INFINITY;
    const float raised = fmaxf(best, warp_largest(score));
    const float shift = softmax_shift(raised) * scale;
    const float rescale = ptx::exp2(best * scale - shift);
    const float share = ptx::exp2(score * scale - shift);
    weight = weight * rescale + warp_sum(share);
    best = raised;
#pragma unroll
    for (int c = 0; c < kPlainChunks; ++c) blend[c] *= rescale;
    for (uint32_t rest = word; rest != 0; rest &= rest - 1) {
      const int i = __ffs(static_cast<int>(rest)) - 1;
      const float part = __shfl_sync(0xFFFFFFFFu, share, i);
      const T* row = v + (key + i) * channels;
#pragma unroll
      for (int c = 0; c < kPlainChunks; ++c) {
        const int64_t d = first + c * kWarp + lane;
        if (d < depth) blend[c] += part * number_from(row[d]);
      }
    }
  }
  return {best, weight};
}

template <class T>
__global__ void __launch_bounds__(kPlainWarps* kWarp)
    attend_plain_kernel(const __grid_constant__ Job job, const T* __restrict__ q,
                        const T* __restrict__ k, const T* __restrict__ v) {
  const Shape& s = job.shape;
  const int lane = threadIdx.x % kWarp;
  const int32_t part = blockIdx.x;  // the grid is [parts, M, blocks of (n, q)]
  const int32_t m = blockIdx.y;
  const int64_t row = int64_t{blockIdx.z} * kPlainWarps + threadIdx.x / kWarp;
  if (row >= s.batch * s.queries) return;  // whole warps leave together
  const int64_t n = row / s.queries;
  const int64_t depth = job.depth;
  const int64_t column = m * depth;
  const int64_t image = n * s.positions * s.channels + column;
  const auto* seen = reinterpret_cast<const uint32_t*>(job.seen + row * job.row_bytes);
  const int64_t begin = int64_t{part} * job.part_tiles * kTileKeys;
  const int64_t end = min(begin + int64_t{job.part_tiles} * kTileKeys, s.positions);
  const int64_t slot = job.slot(n, row % s.queries, m, part);

  for (int64_t first = 0; first < depth; first += kPlainChunks * kWarp) {
    float blend[kPlainChunks] = {};
    const float2 found = attend_part(job, q + row * s.channels + column, k + image, v + image,
                                     seen, begin, end, first, blend);
    if (lane == 0) job.statistics[slot] = found;
#pragma unroll
    for (int c = 0; c < kPlainChunks; ++c) {
      const int64_t d = first + c * kWarp + lane;
      if (d < depth) job.blend[slot * depth + d] = blend[c];
    }
  }
}

}  // namespace m2f::masked_attention
