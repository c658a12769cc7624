#pragma once

#include "common/cuda/ptx.cuh"
#include "common/cuda/storage.cuh"
#include "ops/ms_deform_attn/cuda_blend.cuh"
#include "ops/ms_deform_attn/math.h"

// The op on CUDA for Mask2Former's sizes: 8 heads of 32 channels, 3 levels, 4 points.
//
// Work:    a block is one head of a tile of neighbouring queries of one level, in Morton order,
// so
//          that every warp is a small square of them. A query takes as many lanes as 32
//          channels of value take vectors of 16 bytes. First its lanes share out the samples:
//          softmax, where each falls, which four pixels that is, their weights. Then they go
//          through the samples together, handed round by shuffles, and each blends its own
//          channels.
// Traffic: 4 * 12 vectors of 16 bytes per lane, gathered; neighbours look at the same pixels,
// so
//          that most come from the first cache. Sampling and output are read and written once.
// Math:    math.h; coordinates, softmax and sums over samples are float (int8: exact integers).
//
// No shared memory: it would be taken from the first cache, and no barrier.

namespace m2f::ms_deform_attn {

constexpr int kHeads = 8;
constexpr int kDepth = 32;
constexpr int kLevels = 3;
constexpr int kPoints = 4;
constexpr int kSamples = kLevels * kPoints;
constexpr int kRow = kHeads * kSamples * 3;  // of sampling

constexpr int kTileWidth = 8;

// One level as the kernel wants it.
struct TiledLevel {
  float width, height;
  float per_column[kLevels];  // width of this level to that of each level of queries
  float per_row[kLevels];
  uint32_t row_bytes;  // of value
  uint32_t start;      // first row of this level in value[:, S]
  int32_t first_tile;
  int32_t tiles_across;
  float per_tiles_across;
};

struct TiledJob {
  TiledLevel level[kLevels];
  int64_t positions;
  const void* value;
  const void* sampling;
  void* output;
  float value_scale;
};

template <class V>
constexpr int kLanes = kDepth / Blend<V>::kChannels;  // of a query

template <class V, int kTileHeight>
constexpr int kTiledThreads = kTileWidth * kTileHeight * kLanes<V>;

// The query of a lane, and whether the tile has one there: at borders of a level its last rows
// and columns are repeated.
struct Query {
  int32_t level;
  int32_t x, y;
  bool exists;
};

template <class V, int kTileHeight>
static __device__ __forceinline__ Query query_of(const TiledJob& job) {
  const int32_t tile = static_cast<int32_t>(blockIdx.x);
  int32_t l = 0;
#pragma unroll
  for (int32_t i = 1; i < kLevels; ++i) {
    if (tile >= job.level[i].first_tile) l = i;
  }
  const TiledLevel& level = job.level[l];
  // Exact for what supports() lets through: the quotient is never within rounding of an
  // integer.
  const int32_t index = tile - level.first_tile;
  const int32_t row =
      __float2int_rz((static_cast<float>(index) + 0.5f) * level.per_tiles_across);
  const int32_t column = index - row * level.tiles_across;
  // Morton order: even bits are x, odd bits y.
  const int32_t i = static_cast<int32_t>(threadIdx.x) / kLanes<V>;
  const int32_t x = column * kTileWidth + ((i & 1) | (i >> 1 & 2) | (i >> 2 & 4));
  const int32_t y = row * kTileHeight + ((i >> 1 & 1) | (i >> 2 & 2) | (i >> 3 & 4));
  const int32_t right = static_cast<int32_t>(level.width) - 1;
  const int32_t bottom = static_cast<int32_t>(level.height) - 1;
  return {l, min(x, right), min(y, bottom), x <= right && y <= bottom};
}

// A sample ready to be blended: its first pixel, in bytes from the image's, and four weights.
template <class V>
struct Tap {
  uint32_t offset;
  typename Blend<V>::Weights weights;
};

template <class V>
static __device__ __forceinline__ Tap<V> tap_at(const TiledLevel& level, float x, float y,
                                                float weight) {
  constexpr uint32_t kPixelBytes = kHeads * kDepth * sizeof(V);
  const Window across = window(x, level.width);
  const Window down = window(y, level.height);
  const float upper = weight * down.first_share;
  const float lower = weight * down.second_share;
  const uint32_t first = static_cast<uint32_t>(across.first) + level.start;
  return {static_cast<uint32_t>(down.first) * level.row_bytes + first * kPixelBytes,
          Blend<V>::weigh({{across.first_share * upper, across.second_share * upper,
                            across.first_share * lower, across.second_share * lower}})};
}

// The samples that one lane prepares: kOwn neighbouring points of every level, while the next
// lane of its group has the next ones. Lanes beyond the points repeat them (float).
template <class V>
struct Share {
  static constexpr int kGroup = kLanes<V> < kPoints ? kLanes<V> : kPoints;
  static constexpr int kOwn = kPoints / kGroup;

  Tap<V> tap[kLevels][kOwn];
  float total;  // of the weights of all samples of this query

  // A lane that prepared point p; there it is the point p % kOwn of its level.
  static __device__ __forceinline__ int lane_of(int lane, int p) {
    return (lane & -kGroup) | p / kOwn;
  }
};

template <class V, class T>
static __device__ __forceinline__ Share<V> prepare(const TiledJob& job, const Query& query,
                                                   const T* row, int head) {
  using S = Share<V>;
  using Pair = typename cuda::Device<T>::Pair;
  const int first = static_cast<int>(threadIdx.x) % S::kGroup * S::kOwn;
  const auto* offsets = reinterpret_cast<const Pair*>(row) + head * kSamples + first;
  const T* logits = row + (2 * kHeads + head) * kSamples + first;

  float weight[kLevels][S::kOwn];
  float best = -INFINITY;
#pragma unroll
  for (int l = 0; l < kLevels; ++l) {
#pragma unroll
    for (int i = 0; i < S::kOwn; ++i) {
      weight[l][i] = cuda::load_float(logits + l * kPoints + i);
      best = fmaxf(best, weight[l][i]);
    }
  }
#pragma unroll
  for (int lanes = 1; lanes < S::kGroup; lanes *= 2) {
    best = fmaxf(best, __shfl_xor_sync(kAllLanes, best, lanes));
  }

  Share<V> share;
  share.total = 0.0f;
  const float x = static_cast<float>(query.x) + 0.5f;
  const float y = static_cast<float>(query.y) + 0.5f;
#pragma unroll
  for (int l = 0; l < kLevels; ++l) {
    const TiledLevel& level = job.level[l];
    const float centre_x = x * level.per_column[query.level] - 0.5f;
    const float centre_y = y * level.per_row[query.level] - 0.5f;
#pragma unroll
    for (int i = 0; i < S::kOwn; ++i) {
      constexpr float kLog2E = 1.44269504f;
      const float exponential = ptx::exp2((weight[l][i] - best) * kLog2E);
      const float2 offset = cuda::floats_of(__ldg(offsets + l * kPoints + i));
      share.total += exponential;
      share.tap[l][i] = tap_at<V>(level, centre_x + offset.x, centre_y + offset.y, exponential);
    }
  }
#pragma unroll
  for (int lanes = 1; lanes < S::kGroup; lanes *= 2) {
    share.total += __shfl_xor_sync(kAllLanes, share.total, lanes);
  }
  return share;
}

template <class V, class T, int kTileHeight>
__global__ void __launch_bounds__(kTiledThreads<V, kTileHeight>)
    tiled_kernel(const __grid_constant__ TiledJob job) {
  constexpr uint32_t kPixelBytes = kHeads * kDepth * sizeof(V);
  constexpr int kChannels = Blend<V>::kChannels;
  const int head = static_cast<int>(blockIdx.y);
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int channel = head * kDepth + lane % kLanes<V> * kChannels;

  const Query query = query_of<V, kTileHeight>(job);
  const int64_t image = int64_t{blockIdx.z} * job.positions;
  const int64_t position = image + job.level[query.level].start +
                           query.y * static_cast<int32_t>(job.level[query.level].width) +
                           query.x;
  const T* row = static_cast<const T*>(job.sampling) + position * kRow;
  const Share<V> share = prepare<V>(job, query, row, head);

  const char* value = static_cast<const char*>(job.value) + image * int64_t{kPixelBytes} +
                      channel * static_cast<int>(sizeof(V));
  Blend<V> blend;
#pragma unroll
  for (int l = 0; l < kLevels; ++l) {
#pragma unroll
    for (int p = 0; p < kPoints; ++p) {
      const int owner = Share<V>::lane_of(lane, p);
      const Tap<V>& tap = share.tap[l][p % Share<V>::kOwn];
      const char* upper = value + __shfl_sync(kAllLanes, tap.offset, owner);
      const char* lower = upper + job.level[l].row_bytes;
      const uint4 pixels[4] = {__ldg(reinterpret_cast<const uint4*>(upper)),
                               __ldg(reinterpret_cast<const uint4*>(upper + kPixelBytes)),
                               __ldg(reinterpret_cast<const uint4*>(lower)),
                               __ldg(reinterpret_cast<const uint4*>(lower + kPixelBytes))};
      blend.add(pixels, shuffle(tap.weights, owner));
    }
  }
  if (!query.exists) return;
  float result[kChannels];
  blend.result(job.value_scale * ptx::reciprocal(share.total), result);
  cuda::store_vectors(result,
                      static_cast<T*>(job.output) + position * (kHeads * kDepth) + channel);
}

}  // namespace m2f::ms_deform_attn
