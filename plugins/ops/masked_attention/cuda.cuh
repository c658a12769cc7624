#pragma once

#include "common/cuda/ptx.cuh"
#include "ops/masked_attention/math.h"

// Masked attention on CUDA: what every path shares.
//
// Work:    three kernels. see_kernel turns each query's mask into bits, once for all heads.
// Then
//          the keys of every head are cut into parts, and a block attends to one part
//          (cuda_mma.cuh on tensor cores, cuda_plain.cuh for everything else): a blend of
//          values and its softmax statistics. combine_kernel joins the parts.
// Traffic: the mask logits are read once; k and v once per tile of queries, except 64-key tiles
//          that the whole block has hidden, which are never touched.
// Math:    math.h; sums, statistics and parts in float.

namespace m2f::masked_attention {

constexpr int kWarp = 32;
constexpr int kTileKeys = 64;    // keys of a tile: one word of mask bits
constexpr int kPartTiles = 16;   // most tiles of one part
constexpr int kBlockRows = 128;  // most queries of one block

// One call, as the kernels see it.
struct Job {
  Shape shape;
  const uint8_t* seen;  // [N, Q, row_bytes]: bit i says that position i is seen
  int32_t row_bytes;    // a multiple of 16
  int32_t part_tiles;   // tiles of a part, even
  int32_t parts;
  int32_t depth;  // D
  // Exponents are to the base 2: exp(x / sqrt(D)) = 2^(x * exponent_scale).
  float exponent_scale;
  float2* statistics;  // [N, Q, M, parts]: largest score (q . k), sum of exp(score - largest)
  float* blend;        // [N, Q, M, parts, D]; only written where that sum is not 0

  M2F_HD_METHOD int64_t slot(int64_t n, int64_t q, int32_t m, int32_t part) const {
    return ((n * shape.queries + q) * shape.heads + m) * parts + part;
  }
};

__device__ __forceinline__ float number_from(float x) { return x; }
__device__ __forceinline__ float number_from(__half x) { return __half2float(x); }
__device__ __forceinline__ float number_from(__nv_bfloat16 x) { return __bfloat162float(x); }

__device__ __forceinline__ void round_to(float x, float* to) { *to = x; }
__device__ __forceinline__ void round_to(float x, __half* to) { *to = __float2half_rn(x); }
__device__ __forceinline__ void round_to(float x, __nv_bfloat16* to) {
  *to = __float2bfloat16_rn(x);
}

// Largest and sum over a warp.
__device__ __forceinline__ float warp_largest(float x) {
#pragma unroll
  for (int step = kWarp / 2; step > 0; step /= 2) {
    x = fmaxf(x, __shfl_xor_sync(0xFFFFFFFFu, x, step));
  }
  return x;
}

__device__ __forceinline__ float warp_sum(float x) {
#pragma unroll
  for (int step = kWarp / 2; step > 0; step /= 2) x += __shfl_xor_sync(0xFFFFFFFFu, x, step);
  return x;
}

constexpr int kSeeThreads = 512;
constexpr int kSeeKeys = 8;  // positions of one thread at a time: a byte of bits

// Bits of up to 8 positions that exist, as seen unless hidden.
template <class T>
__device__ __forceinline__ uint32_t seen_bits(const T* logits, int64_t left) {
  uint32_t bits = 0;
  if (left >= kSeeKeys) {
#pragma unroll
    for (int i = 0; i < kSeeKeys; ++i) {
      bits |= is_hidden(number_from(logits[i])) ? 0u : 1u << i;
    }
  } else {
    for (int i = 0; i < left; ++i) bits |= is_hidden(number_from(logits[i])) ? 0u : 1u << i;
  }
  return bits;
}

// The same of 8 positions in as few loads as their alignment allows.
template <class T>
__device__ __forceinline__ uint32_t seen_bits_aligned(const T* logits) {
  constexpr int kLoads = kSeeKeys * static_cast<int>(sizeof(T)) / 16;
  uint4 raw[kLoads];
#pragma unroll
  for (int i = 0; i < kLoads; ++i) raw[i] = reinterpret_cast<const uint4*>(logits)[i];
  T loaded[kSeeKeys];
  memcpy(loaded, raw, sizeof loaded);
  return seen_bits(loaded, kSeeKeys);
}

// One block makes the bits of one query; a query that would see nothing sees everything.
template <class T, bool kAligned>
__global__ void __launch_bounds__(kSeeThreads)
    see_kernel(const T* __restrict__ mask_logits, uint8_t* __restrict__ seen, int64_t positions,
               int32_t row_bytes) {
  const T* logits = mask_logits + blockIdx.x * positions;
  uint8_t* row = seen + static_cast<int64_t>(blockIdx.x) * row_bytes;
  uint32_t any = 0;
  for (int32_t i = threadIdx.x; i < row_bytes; i += blockDim.x) {
    const int64_t first = int64_t{kSeeKeys} * i;
    const uint32_t bits = kAligned && first < positions
                              ? seen_bits_aligned(logits + first)
                              : seen_bits(logits + first, positions - first);
    row[i] = static_cast<uint8_t>(bits);
    any |= bits;
  }
  if (__syncthreads_or(any != 0)) return;
  for (int32_t i = threadIdx.x; i < row_bytes; i += blockDim.x) {
    const int64_t left = positions - int64_t{kSeeKeys} * i;
    row[i] = static_cast<uint8_t>(left >= kSeeKeys ? 0xFF : left > 0 ? (1 << left) - 1 : 0);
  }
}

constexpr int kCombineThreads = 128;

// A warp joins the parts of one head of one query.
template <class T>
__global__ void __launch_bounds__(kCombineThreads)
    combine_kernel(const __grid_constant__ Job job, T* __restrict__ output) {
  const Shape& s = job.shape;
  const int lane = threadIdx.x % kWarp;
  const int64_t row = (int64_t{blockIdx.x} * kCombineThreads + threadIdx.x) / kWarp;
  if (row >= s.batch * s.queries * s.heads) return;  // whole warps leave together
  const float2* statistics = job.statistics + row * job.parts;
  const float scale = job.exponent_scale;
  float best = -INFINITY;
  for (int p = lane; p < job.parts; p += kWarp) best = fmaxf(best, statistics[p].x);
  const float shift = softmax_shift(warp_largest(best)) * scale;

  const int32_t depth = job.depth;
  for (int32_t first = 0; first < depth; first += kWarp) {
    const bool exists = first + lane < depth;
    const float* blend = job.blend + row * job.parts * depth + (exists ? first + lane : 0);
    float weight = 0.0f;
    float sum = 0.0f;
    for (int p = 0; p < job.parts; p += kWarp) {  // a lane knows one part's factor
      const float2 part = p + lane < job.parts ? statistics[p + lane] : float2{0.0f, 0.0f};
      const float factor = ptx::exp2(part.x * scale - shift);
      if (part.y != 0.0f) weight += part.y * factor;
      // A part that saw nothing wrote nothing.
      const unsigned wrote = __ballot_sync(0xFFFFFFFFu, part.y != 0.0f);
      const int count = min(kWarp, job.parts - p);
#pragma unroll 4
      for (int i = 0; i < count; ++i, blend += depth) {
        const float of_part = __shfl_sync(0xFFFFFFFFu, factor, i);
        if (wrote >> i & 1u) sum += *blend * of_part;
      }
    }
    weight = warp_sum(weight);
    if (exists) round_to(sum / weight, output + row * depth + first + lane);
  }
}

}  // namespace m2f::masked_attention
