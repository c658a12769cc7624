#pragma once

#include "ops/masked_attention/cuda.cuh"

// Masked attention on tensor cores: 16-bit storage, heads of 32 channels.
//
// Work:    a block owns one head, up to 128 queries and one part of the keys; a warp owns 16 of
//          the queries (mma.m16n8k16). It walks over tiles of 64 keys, skipping those that all
//          its queries have hidden; statistics online (Milakov and Gimelshein 2018).
// Traffic: a tile of k and v comes through shared memory, the next one on its way (cp.async)
//          while this one is used; rows are padded by 16 bytes, so that ldmatrix meets no bank
//          conflict. Queries and mask bits are read once.
// Math:    math.h; products of 16-bit numbers and sums in float; weights are rounded to 16 bits
//          for the product with v, as their sum is not.

namespace m2f::masked_attention {

constexpr int kMmaDepth = 32;  // channels of a head
constexpr int kMmaRows = 16;   // queries of a warp
constexpr int kMmaWarps = kBlockRows / kMmaRows;
constexpr int kKeyTiles = kTileKeys / 8;    // n8 tiles of a tile's scores
constexpr int kValueTiles = kMmaDepth / 8;  // n8 tiles of the blend
constexpr int kRowPieces = kMmaDepth / 8;   // 16-byte pieces of a row of k or v
constexpr int kPadded = kMmaDepth + 8;      // elements from row to row

template <class T>
struct MmaShared {
  T keys[2][kTileKeys][kPadded];
  T values[2][kTileKeys][kPadded];
  // [query, tile]: a word more than needed, so that 8 queries lie in different banks.
  uint2 seen[kBlockRows][kPartTiles + 1];
  uint32_t live[kMmaWarps];  // tiles that a query of the warp sees
};

__device__ __forceinline__ uint32_t pack(float low, float high, __half) {
  const __half2 both = __floats2half2_rn(low, high);
  uint32_t bits;
  memcpy(&bits, &both, sizeof bits);
  return bits;
}

__device__ __forceinline__ uint32_t pack(float low, float high, __nv_bfloat16) {
  const __nv_bfloat162 both = __floats2bfloat162_rn(low, high);
  uint32_t bits;
  memcpy(&bits, &both, sizeof bits);
  return bits;
}

// What a block works on.
struct MmaTask {
  int64_t n;
  int32_t m;
  int32_t part;
  int64_t first_query;  // of the block
  int32_t first_tile;
  int32_t tiles;

  // The grid is [parts, M, N * blocks of queries].
  __device__ __forceinline__ explicit MmaTask(const Job& job) {
    const int32_t rows = blockDim.x / kWarp * kMmaRows;
    const int32_t blocks = (static_cast<int32_t>(job.shape.queries) + rows - 1) / rows;
    part = blockIdx.x;
    m = blockIdx.y;
    n = blockIdx.z / blocks;
    first_query = int64_t{blockIdx.z % blocks} * rows;
    first_tile = part * job.part_tiles;
    const int32_t left = job.row_bytes / static_cast<int32_t>(sizeof(uint2)) - first_tile;
    tiles = min(left, job.part_tiles);
  }
};

// A warp brings the mask bits of its own queries; returns the tiles any of them sees.
template <class T>
__device__ __forceinline__ uint32_t load_seen(const Job& job, const MmaTask& task,
                                              MmaShared<T>& shared) {
  constexpr int kPairs = kPartTiles / 2;   // lanes for one query, 16 bytes each
  constexpr int kAtOnce = kWarp / kPairs;  // queries
  const int lane = threadIdx.x % kWarp;
  const int tile = lane % kPairs * 2;
  uint32_t live = 0;
#pragma unroll
  for (int i = 0; i < kMmaRows; i += kAtOnce) {
    const int row = threadIdx.x / kWarp * kMmaRows + i + lane / kPairs;
    const int64_t query = task.first_query + row;
    uint4 words = {0, 0, 0, 0};
    if (query < job.shape.queries && tile < task.tiles) {
      words = *reinterpret_cast<const uint4*>(
          job.seen + (task.n * job.shape.queries + query) * job.row_bytes +
          (task.first_tile + tile) * sizeof(uint2));
    }
    shared.seen[row][tile] = {words.x, words.y};
    shared.seen[row][tile + 1] = {words.z, words.w};
    live |= (words.x | words.y ? 1u : 0u) << tile | (words.z | words.w ? 2u : 0u) << tile;
  }
#pragma unroll
  for (int step = 1; step < kWarp; step *= 2) {
    live |= __shfl_xor_sync(0xFFFFFFFFu, live, step);
  }
  return live;
}

// Where a thread's piece of every tile comes from and goes to: of each `step` rows one, from
// `row` on. Pieces are 16 bytes of k and as many of v.
template <class T>
struct MmaLoader {
  const T* k;  // of key 0
  const T* v;
  int32_t channels;
  int32_t positions;
  int32_t row;
  int32_t column;
  int32_t step;

  __device__ __forceinline__ MmaLoader(const Job& job, const MmaTask& task, const T* all_k,
                                       const T* all_v) {
    row = threadIdx.x / kRowPieces;
    column = threadIdx.x % kRowPieces * 8;
    step = blockDim.x / kRowPieces;
    channels = static_cast<int32_t>(job.shape.channels);
    positions = static_cast<int32_t>(job.shape.positions);
    const int64_t from = task.n * job.shape.positions * channels + task.m * kMmaDepth + column;
    k = all_k + from;
    v = all_v + from;
  }

  // Starts to copy the tile that begins at `key`; keys past the last are zero.
  __device__ __forceinline__ void load(int32_t key, int stage, MmaShared<T>& shared) const {
    for (int32_t i = row; i < kTileKeys; i += step) {
      const bool exists = key + i < positions;
      const int64_t from = int64_t{exists ? key + i : 0} * channels;
      const int bytes = exists ? 16 : 0;
      ptx::cp_async<16>(&shared.keys[stage][i][column], k + from, bytes);
      ptx::cp_async<16>(&shared.values[stage][i][column], v + from, bytes);
    }
    ptx::cp_async_commit();
  }
};

// A warp's 16 queries as the first operand of mma: [two halves of D] of (row, row + 8) x (8
// channels, 8 more).
template <class T>
__device__ __forceinline__ void load_queries(const Job& job, const MmaTask& task, const T* q,
                                             uint32_t (&fragments)[2][4]) {
  const int lane = threadIdx.x % kWarp;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int64_t query =
        task.first_query + threadIdx.x / kWarp * kMmaRows + lane / 4 + 8 * half;
    const T* row = q + (task.n * job.shape.queries + query) * job.shape.channels +
                   task.m * kMmaDepth + lane % 4 * 2;
    const bool exists = query < job.shape.queries;
#pragma unroll
    for (int step = 0; step < 4; ++step) {
      fragments[step / 2][step % 2 * 2 + half] =
          exists ? *reinterpret_cast<const uint32_t*>(row + 8 * step) : 0u;
    }
  }
}

// What a lane keeps of its warp's queries: two rows (lane / 4 and 8 below), and of every 8
// columns two (2 (lane % 4) and the next).
struct Rows {
  float best[2] = {-INFINITY, -INFINITY};
  float weight[2] = {0.0f, 0.0f};  // this lane's columns only
  float blend[kValueTiles][4] = {};
};

// scores = q k^T of one tile.
template <class T>
__device__ __forceinline__ void multiply_keys(const uint32_t (&queries)[2][4],
                                              const T (&keys)[kTileKeys][kPadded],
                                              float (&scores)[kKeyTiles][4]) {
  const int lane = threadIdx.x % kWarp;
#pragma unroll
  for (int i = 0; i < kKeyTiles; ++i) {
    uint32_t fragments[4];
    ptx::ldmatrix(fragments, &keys[8 * i + lane % 8][lane / 8 * 8]);
    const uint32_t low[2] = {fragments[0], fragments[1]};
    const uint32_t high[2] = {fragments[2], fragments[3]};
    scores[i][0] = scores[i][1] = scores[i][2] = scores[i][3] = 0.0f;
    ptx::mma_m16n8k16(scores[i], queries[0], low, T{});
    ptx::mma_m16n8k16(scores[i], queries[1], high, T{});
  }
}

// Turns the scores of one row into weights, and returns what its blend is to be multiplied by.
// `seen` are the row's bits, moved so that bit 8 i and the next are this lane's of n8 tile i.
__device__ __forceinline__ float soften(float (&scores)[kKeyTiles][4], int row, uint2 seen,
                                        float scale, Rows& rows) {
  float best = rows.best[row];
#pragma unroll
  for (int i = 0; i < kKeyTiles; ++i) {
    const uint32_t word = i < kKeyTiles / 2 ? seen.x : seen.y;
#pragma unroll
    for (int c = 0; c < 2; ++c) {
      float& score = scores[i][2 * row + c];
      score = word & 1u << (8 * i + c) % 32 ? score : -INFINITY;
      best = fmaxf(best, score);
    }
  }
  best = fmaxf(best, __shfl_xor_sync(0xFFFFFFFFu, best, 1));
  best = fmaxf(best, __shfl_xor_sync(0xFFFFFFFFu, best, 2));
  const float shift = softmax_shift(best) * scale;
  const float rescale = ptx::exp2(rows.best[row] * scale - shift);
  float sum = 0.0f;
#pragma unroll
  for (int i = 0; i < kKeyTiles; ++i) {
#pragma unroll
    for (int c = 0; c < 2; ++c) {
      float& score = scores[i][2 * row + c];
      score = ptx::exp2(score * scale - shift);
      sum += score;
    }
  }
  rows.weight[row] = rows.weight[row] * rescale + sum;
  rows.best[row] = best;
  return rescale;
}

// blend += weights v of one tile. The result of a score's mma is, as it lies, the first operand
// of the next.
template <class T>
__device__ __forceinline__ void add_values(const float (&weights)[kKeyTiles][4],
                                           const T (&values)[kTileKeys][kPadded], Rows& rows) {
  const int lane = threadIdx.x % kWarp;
#pragma unroll
  for (int i = 0; i < kKeyTiles; i += 2) {
    const uint32_t fragments[4] = {pack(weights[i][0], weights[i][1], T{}),
                                   pack(weights[i][2], weights[i][3], T{}),
                                   pack(weights[i + 1][0], weights[i + 1][1], T{}),
                                   pack(weights[i + 1][2], weights[i + 1][3], T{})};
#pragma unroll
    for (int j = 0; j < kValueTiles; j += 2) {
      uint32_t pair[4];
      ptx::ldmatrix_transposed(pair, &values[8 * i + lane % 16][8 * j + lane / 16 * 8]);
      const uint32_t left[2] = {pair[0], pair[1]};
      const uint32_t right[2] = {pair[2], pair[3]};
      ptx::mma_m16n8k16(rows.blend[j], fragments, left, T{});
      ptx::mma_m16n8k16(rows.blend[j + 1], fragments, right, T{});
    }
  }
}

template <class T>
__device__ __forceinline__ void attend_tile(const uint32_t (&queries)[2][4], int tile,
                                            int stage, float scale, const MmaShared<T>& shared,
                                            Rows& rows) {
  const int lane = threadIdx.x % kWarp;
  float scores[kKeyTiles][4];
  multiply_keys(queries, shared.keys[stage], scores);
#pragma unroll
  for (int row = 0; row < 2; ++row) {
    uint2 seen = shared.seen[threadIdx.x / kWarp * kMmaRows + lane / 4 + 8 * row][tile];
    seen = {seen.x >> lane % 4 * 2, seen.y >> lane % 4 * 2};
    const float rescale = soften(scores, row, seen, scale, rows);
#pragma unroll
    for (int j = 0; j < kValueTiles; ++j) {
      rows.blend[j][2 * row] *= rescale;
      rows.blend[j][2 * row + 1] *= rescale;
    }
  }
  add_values(scores, shared.values[stage], rows);
}

__device__ __forceinline__ void store_rows(const Job& job, const MmaTask& task, Rows& rows) {
  const int lane = threadIdx.x % kWarp;
#pragma unroll
  for (int row = 0; row < 2; ++row) {
    float weight = rows.weight[row];
    weight += __shfl_xor_sync(0xFFFFFFFFu, weight, 1);
    weight += __shfl_xor_sync(0xFFFFFFFFu, weight, 2);
    const int64_t query =
        task.first_query + threadIdx.x / kWarp * kMmaRows + lane / 4 + 8 * row;
    if (query >= job.shape.queries) continue;
    const int64_t slot = job.slot(task.n, query, task.m, task.part);
    if (lane % 4 == 0) job.statistics[slot] = {rows.best[row], weight};
    if (weight == 0.0f) continue;
#pragma unroll
    for (int j = 0; j < kValueTiles; ++j) {
      *reinterpret_cast<float2*>(job.blend + slot * kMmaDepth + 8 * j + lane % 4 * 2) = {
          rows.blend[j][2 * row], rows.blend[j][2 * row + 1]};
    }
  }
}

template <class T>
__global__ void __launch_bounds__(kMmaWarps* kWarp, 2)
    attend_mma_kernel(const __grid_constant__ Job job, const T* __restrict__ q,
                      const T* __restrict__ k, const T* __restrict__ v) {
  __align__(16) __shared__ MmaShared<T> shared;
  const MmaTask task(job);
  const uint32_t live = load_seen(job, task, shared);
  if (threadIdx.x % kWarp == 0) shared.live[threadIdx.x / kWarp] = live;
  uint32_t queries[2][4];
  load_queries(job, task, q, queries);
  __syncthreads();
  uint32_t pending = 0;  // tiles that any warp sees
  for (unsigned w = 0; w < blockDim.x / kWarp; ++w) pending |= shared.live[w];

  Rows rows;
  const float scale = job.exponent_scale;
  const MmaLoader<T> loader(job, task, k, v);
  const auto first_key = [&] { return (task.first_tile + __ffs(pending) - 1) * kTileKeys; };
  if (pending != 0) loader.load(first_key(), 0, shared);
  for (int stage = 0; pending != 0; stage ^= 1) {
    const int tile = __ffs(pending) - 1;
    pending &= pending - 1;
    ptx::cp_async_wait<0>();
    __syncthreads();  // this tile is there, and nobody reads the other stage any more
    if (pending != 0) loader.load(first_key(), stage ^ 1, shared);
    if (live >> tile & 1u) attend_tile(queries, tile, stage, scale, shared, rows);
  }
  store_rows(job, task, rows);
}

}  // namespace m2f::masked_attention
