#pragma once

#include "common/simd.h"
#include "ops/masked_attention/kernel.h"

// Masked attention in vectors, for one instruction set per inclusion.
//
// Work:    a task is one head of a tile of queries. It walks over blocks of 64 keys, and within
//          a block over the queries that see any key of it, four at a time: what a block has
//          hidden from a query costs nothing. One pass, softmax statistics online (Milakov and
//          Gimelshein 2018), rescaled where a block raises the maximum.
// Traffic: k and v once per task, packed per block into the first cache (keys transposed);
//          scores never leave it. The mask is read once, as bits that the heads share.
// Math:    math.h; sums in float. Not here: threads, memory, checks (op.cc).

namespace m2f::masked_attention {
namespace {

// The mask of one query as bits; a query that would see nothing sees everything.
template <class T>
void see_as(const Work& work, int64_t query) {
  const int64_t positions = work.shape.positions;
  const T* logits = static_cast<const T*>(work.mask_logits) + query * positions;
  uint64_t* seen = work.seen + query * work.blocks();
  uint64_t any = 0;
  for (int64_t b = 0; b < work.blocks(); ++b) {
    const int64_t count = positions - b * kKeys < kKeys ? positions - b * kKeys : kKeys;
    alignas(64) float block[kKeys];
    for (int64_t i = 0; i < count; ++i) block[i] = to_float(logits[b * kKeys + i]);
    for (int64_t i = count; i < kKeys; ++i) block[i] = -1.0f;
    uint64_t word = 0;
    for (int64_t i = 0; i < kKeys; i += kLanes) {
      word |= uint64_t{not_negative(load(block + i))} << i;
    }
    seen[b] = word;
    any |= word;
  }
  if (any != 0) return;
  for (int64_t b = 0; b < work.blocks(); ++b) seen[b] = ~uint64_t{0};
  const int64_t tail = positions % kKeys;
  if (tail != 0) seen[work.blocks() - 1] = (uint64_t{1} << tail) - 1;
}

// Scratch memory of a task.
struct Tile {
  float* keys;    // [D, 64]
  float* values;  // [64, padded]
  float* q;       // [queries, D], scaled
  float* sum;     // [queries, padded]: the blend so far, not yet divided
  float* best;    // [queries]: the largest score so far
  float* weight;  // [queries]: the sum of exp(score - best) so far
  float* score;   // [4, 64]
};

M2F_HD Tile tile_in(const Work& work, float* memory) {
  const int64_t depth = work.shape.depth();
  const int64_t size = work.tile_size();
  Tile t;
  t.keys = memory;
  t.values = t.keys + kKeys * depth;
  t.score = t.values + kKeys * work.padded;
  t.sum = t.score + 4 * kKeys;
  t.best = t.sum + size * work.padded;
  t.weight = t.best + size;
  t.q = t.weight + size;
  return t;
}

// Copies [rows, D] with a stride of `channels` to its transpose [D, 64].
template <class T>
M2F_HD void transpose(const T* from, int64_t rows, int64_t depth, int64_t channels, float* to) {
  int64_t i = 0;
  for (; i + 4 <= rows; i += 4) {
    const T* row = from + i * channels;
    int64_t d = 0;
    for (; d + 4 <= depth; d += 4) {
      const Quad square[4] = {load_quad(row + d), load_quad(row + channels + d),
                              load_quad(row + 2 * channels + d),
                              load_quad(row + 3 * channels + d)};
      store_transposed(square, to + d * kKeys + i, kKeys);
    }
    for (; d < depth; ++d) {
      for (int64_t r = 0; r < 4; ++r) to[d * kKeys + i + r] = to_float(row[r * channels + d]);
    }
  }
  for (; i < rows; ++i) {
    for (int64_t d = 0; d < depth; ++d) to[d * kKeys + i] = to_float(from[i * channels + d]);
  }
}

// Keys past the last are zero: they are hidden, and must not be NaN.
template <class T>
M2F_HD void pack(const Work& work, const T* k, const T* v, int64_t count, Tile& t) {
  const int64_t depth = work.shape.depth();
  const int64_t channels = work.shape.channels;
  transpose(k, count, depth, channels, t.keys);
  for (int64_t i = 0; i < count; ++i) {
    float* row = t.values + i * work.padded;
    for (int64_t d = 0; d < depth; ++d) row[d] = to_float(v[i * channels + d]);
    for (int64_t d = depth; d < work.padded; ++d) row[d] = 0.0f;
  }
  for (int64_t i = count; i < kKeys; ++i) {
    for (int64_t d = 0; d < depth; ++d) t.keys[d * kKeys + i] = 0.0f;
    for (int64_t d = 0; d < work.padded; ++d) t.values[i * work.padded + d] = 0.0f;
  }
}

// score[r][i] = q[r] . key[i]; left as it was where none of the rows sees any key nearby.
template <int kRows>
M2F_HD void multiply_keys(const Tile& t, const int32_t* query, int64_t depth, uint64_t seen) {
  constexpr int kVectors = 2;  // rows * vectors sums stay in registers
  constexpr uint64_t kNearby = (uint64_t{1} << (kVectors * kLanes)) - 1;
  const float* q[kRows];
  for (int r = 0; r < kRows; ++r) q[r] = t.q + query[r] * depth;
  for (int64_t i = 0; i < kKeys; i += kVectors * kLanes) {
    if ((seen >> i & kNearby) == 0) continue;
    Floats sum[kRows][kVectors];
    for (int r = 0; r < kRows; ++r) {
      for (int v = 0; v < kVectors; ++v) sum[r][v] = splat<Floats>(0.0f);
    }
    for (int64_t d = 0; d < depth; ++d) {
      Floats key[kVectors];
      for (int v = 0; v < kVectors; ++v) key[v] = load(t.keys + d * kKeys + i + v * kLanes);
      for (int r = 0; r < kRows; ++r) {
        const Floats x = splat<Floats>(q[r][d]);
        for (int v = 0; v < kVectors; ++v) sum[r][v] += x * key[v];
      }
    }
    for (int r = 0; r < kRows; ++r) {
      for (int v = 0; v < kVectors; ++v) {
        store_vector(sum[r][v], t.score + r * kKeys + i + v * kLanes);
      }
    }
  }
}

// Turns the scores of one query into weights and updates its statistics. Returns what the sums
// so far have to be multiplied by.
M2F_HD float soften(float* score, uint64_t seen, float& best, float& weight) {
  Floats peak = splat<Floats>(-__builtin_inff());
  for (int64_t i = 0; i < kKeys; i += kLanes) {
    const uint32_t bits = static_cast<uint32_t>(seen >> i);
    const Floats x = where_bit(bits, load(score + i), splat<Floats>(-__builtin_inff()));
    peak = x > peak ? x : peak;
    store_vector(x, score + i);
  }
  const float raised = at_least(largest(peak), best);
  const float shift = softmax_shift(raised);
  const float rescale = exp_nonpositive(best - shift);
  Floats sum = splat<Floats>(0.0f);
  for (int64_t i = 0; i < kKeys; i += kLanes) {
    const Floats power = exp_nonpositive(load(score + i) - shift);
    store_vector(power, score + i);
    sum += power;
  }
  weight = weight * rescale + total(sum);
  best = raised;
  return rescale;
}

// sum[r] = rescale[r] * sum[r] + weights . values, over the keys that any of the rows sees.
template <int kRows, int kVectors>
M2F_HD void add_values(const Tile& t, const int32_t* query, const float* rescale, uint64_t seen,
                       int64_t padded, int64_t d) {
  Floats sum[kRows][kVectors];
  for (int r = 0; r < kRows; ++r) {
    const float* from = t.sum + query[r] * padded + d;
    for (int v = 0; v < kVectors; ++v) sum[r][v] = load(from + v * kLanes) * rescale[r];
  }
  for (; seen != 0; seen &= seen - 1) {
    const int64_t i = __builtin_ctzll(seen);
    Floats value[kVectors];
    for (int v = 0; v < kVectors; ++v) value[v] = load(t.values + i * padded + d + v * kLanes);
    for (int r = 0; r < kRows; ++r) {
      const Floats x = splat<Floats>(t.score[r * kKeys + i]);
      for (int v = 0; v < kVectors; ++v) sum[r][v] += x * value[v];
    }
  }
  for (int r = 0; r < kRows; ++r) {
    float* to = t.sum + query[r] * padded + d;
    for (int v = 0; v < kVectors; ++v) store_vector(sum[r][v], to + v * kLanes);
  }
}

template <int kRows>
M2F_HD void advance(const Work& work, const Tile& t, const int32_t* query,
                    const uint64_t* seen) {
  uint64_t any = 0;
  for (int r = 0; r < kRows; ++r) any |= seen[r];
  multiply_keys<kRows>(t, query, work.shape.depth(), any);
  float rescale[kRows];
  for (int r = 0; r < kRows; ++r) {
    const int32_t i = query[r];
    rescale[r] = soften(t.score + r * kKeys, seen[r], t.best[i], t.weight[i]);
  }
  int64_t d = 0;
  for (; d + 2 * kLanes <= work.padded; d += 2 * kLanes) {
    add_values<kRows, 2>(t, query, rescale, any, work.padded, d);
  }
  if (d < work.padded) add_values<kRows, 1>(t, query, rescale, any, work.padded, d);
}

template <class T>
void attend_as(const Work& work, int64_t task, float* memory) {
  const Shape& s = work.shape;
  const int64_t depth = s.depth();
  const int64_t head = task / work.tiles();  // (n, m)
  const int64_t n = head / s.heads;
  const int64_t begin = task % work.tiles() * work.tile_size();
  const int64_t left = s.queries - begin;
  const int64_t size = left < work.tile_size() ? left : work.tile_size();
  const int64_t column = head % s.heads * depth;
  const int64_t first = n * s.queries + begin;  // query, over the batch
  const float scale = 1.0f / __builtin_sqrtf(static_cast<float>(depth));

  Tile t = tile_in(work, memory);
  for (int64_t i = 0; i < size; ++i) {
    const T* q = static_cast<const T*>(work.q) + (first + i) * s.channels + column;
    for (int64_t d = 0; d < depth; ++d) t.q[i * depth + d] = to_float(q[d]) * scale;
    for (int64_t d = 0; d < work.padded; ++d) t.sum[i * work.padded + d] = 0.0f;
    t.best[i] = -__builtin_inff();
    t.weight[i] = 0.0f;
  }
  for (int64_t b = 0; b < work.blocks(); ++b) {
    int32_t query[kLargestTile];
    uint64_t seen[kLargestTile];
    int64_t count = 0;
    for (int64_t i = 0; i < size; ++i) {
      const uint64_t word = work.seen[(first + i) * work.blocks() + b];
      query[count] = static_cast<int32_t>(i);
      seen[count] = word;
      count += word != 0;
    }
    if (count == 0) continue;
    const int64_t key = n * s.positions + b * kKeys;
    const int64_t keys = s.positions - b * kKeys < kKeys ? s.positions - b * kKeys : kKeys;
    pack(work, static_cast<const T*>(work.k) + key * s.channels + column,
         static_cast<const T*>(work.v) + key * s.channels + column, keys, t);
    int64_t i = 0;
    for (; i + 4 <= count; i += 4) advance<4>(work, t, query + i, seen + i);
    for (; i < count; ++i) advance<1>(work, t, query + i, seen + i);
  }
  for (int64_t i = 0; i < size; ++i) {
    T* to = static_cast<T*>(work.output) + (first + i) * s.channels + column;
    for (int64_t d = 0; d < depth; ++d) store(t.sum[i * work.padded + d] / t.weight[i], to + d);
  }
}

void see(const Work& work, int64_t query) {
  if (work.storage == Storage::kFloat32) return see_as<float>(work, query);
  if (work.storage == Storage::kFloat16) return see_as<Half>(work, query);
  return see_as<BFloat16>(work, query);
}

void attend(const Work& work, int64_t task, float* memory) {
  if (work.storage == Storage::kFloat32) return attend_as<float>(work, task, memory);
  if (work.storage == Storage::kFloat16) return attend_as<Half>(work, task, memory);
  return attend_as<BFloat16>(work, task, memory);
}

}  // namespace
}  // namespace m2f::masked_attention
