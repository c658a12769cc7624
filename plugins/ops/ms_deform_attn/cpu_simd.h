#pragma once

#include "common/simd.h"
#include "ops/ms_deform_attn/kernel.h"

// Multi-scale deformable attention in vectors, for one instruction set per inclusion.
//
// Work:    a task is a tile of queries. Lanes are queries of one row of it while softmax and
//          positions are computed, then channels while rows are blended.
// Traffic: 4 * L * P rows of D floats per head and query, from the packed columns; queries that
//          follow each other look at the same rows, so most come from the first cache.
// Math:    math.h; sums in float. Not here: threads, memory, checks (op.cc).

namespace m2f::ms_deform_attn {
namespace {

// Copies positions of one image into each head's column.
template <class T>
void pack_as(const Work& work, int64_t task) {
  const Shape& s = work.shape;
  const int64_t n = task / work.packs_per_image();
  const int64_t begin = task % work.packs_per_image() * kPackRows;
  const int64_t end = begin + kPackRows < s.positions ? begin + kPackRows : s.positions;
  const int64_t depth = s.depth();
  const T* value = static_cast<const T*>(work.value) + n * s.positions * s.channels;
  for (int32_t m = 0; m < s.heads; ++m) {
    float* column = work.columns + (n * s.heads + m) * s.positions * work.padded;
    for (int64_t i = begin; i < end; ++i) {
      const T* from = value + i * s.channels + m * depth;
      float* to = column + i * work.padded;
      for (int64_t d = 0; d < depth; ++d) to[d] = to_float(from[d]);
      for (int64_t d = depth; d < work.padded; ++d) to[d] = 0.0f;
    }
  }
}

// What a strip of kLanes queries reads for one head: [sample][query], so that softmax and
// positions are vectors over queries, with nothing to reduce across lanes and no lane idle.
struct Strip {
  alignas(64) float raw[2 * kMaxSamples][kLanes];  // x, y of each sample, pixels
  alignas(64) float share[kMaxSamples][kLanes];    // logits, then exp(logit - the largest)
};

// The four rows of each sample, and the share of each.
struct Taps {
  alignas(64) int32_t row[kMaxSamples][4][kLanes];
  alignas(64) float share[kMaxSamples][4][kLanes];
};

// to[i][lane] = from[lane][i], for `count` numbers of each query; past the last of `queries` it
// is read again.
template <class T>
M2F_HD void transpose(const T* from, int64_t stride, int32_t queries, int32_t count,
                      float (*to)[kLanes]) {
  for (int32_t lane = 0; lane < kLanes; lane += 4) {
    const T* row[4];
    for (int32_t r = 0; r < 4; ++r) {
      row[r] = from + (lane + r < queries ? lane + r : queries - 1) * stride;
    }
    int32_t i = 0;
    for (; i + 4 <= count; i += 4) {
      const Quad square[4] = {load_quad(row[0] + i), load_quad(row[1] + i),
                              load_quad(row[2] + i), load_quad(row[3] + i)};
      store_transposed(square, to[i] + lane, kLanes);
    }
    for (; i < count; ++i) {
      for (int32_t r = 0; r < 4; ++r) to[i][lane + r] = to_float(row[r][i]);
    }
  }
}

// Softmax up to a factor, which is returned.
M2F_HD Floats soften(float (*share)[kLanes], int32_t samples) {
  Floats peak = load(share[0]);
  for (int32_t j = 1; j < samples; ++j) peak = at_least(load(share[j]), peak);
  Floats sum = splat<Floats>(0.0f);
  for (int32_t j = 0; j < samples; ++j) {
    const Floats power = exp_nonpositive(load(share[j]) - peak);
    store_vector(power, share[j]);
    sum += power;
  }
  return 1.0f / sum;
}

M2F_HD void locate(const Shape& s, const Strip& strip, Floats centre_x, float centre_y,
                   Floats scale, Taps& taps) {
  for (int32_t j = 0, l = 0, left = s.points; j < s.samples(); ++j) {
    const Level& level = s.level[l];
    if (--left == 0) {
      ++l;
      left = s.points;
    }
    const Floats width = splat<Floats>(static_cast<float>(level.width));
    const Floats height = splat<Floats>(static_cast<float>(level.height));
    const auto x = around(coordinate(centre_x, load(strip.raw[2 * j]), width), width);
    const auto y =
        around(coordinate(splat<Floats>(centre_y), load(strip.raw[2 * j + 1]), height), height);
    const Floats weight = load(strip.share[j]) * scale;
    const Ints upper = level.start + y.near * level.width;
    const Ints lower = level.start + y.far * level.width;
    const Floats upper_share = weight * y.near_share;
    const Floats lower_share = weight * y.far_share;
    store_vector(upper + x.near, taps.row[j][0]);
    store_vector(upper + x.far, taps.row[j][1]);
    store_vector(lower + x.near, taps.row[j][2]);
    store_vector(lower + x.far, taps.row[j][3]);
    store_vector(upper_share * x.near_share, taps.share[j][0]);
    store_vector(upper_share * x.far_share, taps.share[j][1]);
    store_vector(lower_share * x.near_share, taps.share[j][2]);
    store_vector(lower_share * x.far_share, taps.share[j][3]);
  }
}

// Blends kVectors vectors of channels of all rows of one query. Two sets of sums where
// registers allow, because one would wait for each multiply-add to finish.
template <int kVectors>
M2F_HD void blend(const float* column, int64_t padded, const Taps& taps, int32_t query,
                  int32_t samples, float* to) {
  constexpr int kSets = kVectors <= 4 ? 2 : 1;
  Floats sum[kSets][kVectors];
  for (auto& set : sum) {
    for (auto& vector : set) vector = splat<Floats>(0.0f);
  }
  for (int32_t j = 0; j < samples; ++j) {
    for (int k = 0; k < 4; ++k) {
      const float* row = column + taps.row[j][k][query] * padded;
      const Floats share = splat<Floats>(taps.share[j][k][query]);
      for (int v = 0; v < kVectors; ++v) sum[k % kSets][v] += share * load(row + v * kLanes);
    }
  }
  for (int v = 0; v < kVectors; ++v) {
    if constexpr (kSets == 2) sum[0][v] += sum[1][v];
    store_vector(sum[0][v], to + v * kLanes);
  }
}

template <class T>
M2F_HD void blend_all(const float* column, const Work& work, const Taps& taps, int32_t query,
                      T* output) {
  constexpr int kVectors = 32 / kLanes;  // 32 channels, what published models have
  constexpr int64_t kChunk = kVectors * kLanes;
  const int64_t depth = work.shape.depth();
  const int32_t samples = work.shape.samples();
  alignas(64) float chunk[kChunk];
  int64_t d = 0;
  for (; d + kChunk <= depth; d += kChunk) {
    blend<kVectors>(column + d, work.padded, taps, query, samples, chunk);
    for (int64_t i = 0; i < kChunk; ++i) store(chunk[i], output + d + i);
  }
  for (; d < depth; d += kLanes) {
    blend<1>(column + d, work.padded, taps, query, samples, chunk);
    const int64_t count = depth - d < kLanes ? depth - d : kLanes;
    for (int64_t i = 0; i < count; ++i) store(chunk[i], output + d + i);
  }
}

// One head of the queries of one strip: `count` of them, from column `left` of row y.
template <class T>
M2F_HD void attend_strip(const Work& work, const Level& own, int32_t y, int32_t left,
                         int32_t count, int64_t n, int64_t m, Strip& strip, Taps& taps) {
  const Shape& s = work.shape;
  const int32_t samples = s.samples();
  const int64_t width = s.sampling_width();
  const int64_t query = n * s.positions + own.start + int64_t{y} * own.width + left;
  const T* offsets = static_cast<const T*>(work.sampling) + query * width;
  const T* logits = offsets + int64_t{2} * s.heads * samples;
  transpose(offsets + 2 * m * samples, width, count, 2 * samples, strip.raw);
  transpose(logits + m * samples, width, count, samples, strip.share);

  Floats x;
  for (int lane = 0; lane < kLanes; ++lane) x[lane] = static_cast<float>(left + lane) + 0.5f;
  const float centre_y = (static_cast<float>(y) + 0.5f) / static_cast<float>(own.height);
  const Floats scale = soften(strip.share, samples) * work.format.value_scale;
  locate(s, strip, x / static_cast<float>(own.width), centre_y, scale, taps);

  const float* column = work.columns + (n * s.heads + m) * s.positions * work.padded;
  T* output = static_cast<T*>(work.output) + query * s.channels + m * s.depth();
  for (int32_t i = 0; i < count; ++i) {
    blend_all(column, work, taps, i, output + i * s.channels);
  }
}

template <class T>
void attend_as(const Work& work, int64_t task) {
  const Tile tile = work.tile(task % work.tiles());
  const Level& own = work.shape.level[tile.level];
  Strip strip;
  Taps taps;
  for (int64_t m = 0; m < work.shape.heads; ++m) {
    for (int32_t y = tile.top; y < tile.bottom; ++y) {
      for (int32_t left = tile.left; left < tile.right; left += kLanes) {
        const int32_t count = tile.right - left < kLanes ? tile.right - left : kLanes;
        attend_strip<T>(work, own, y, left, count, task / work.tiles(), m, strip, taps);
      }
    }
  }
}

void pack(const Work& work, int64_t task) {
  if (work.format.value == Storage::kFloat32) return pack_as<float>(work, task);
  if (work.format.value == Storage::kFloat16) return pack_as<Half>(work, task);
  if (work.format.value == Storage::kBFloat16) return pack_as<BFloat16>(work, task);
  return pack_as<int8_t>(work, task);
}

void attend(const Work& work, int64_t task) {
  if (work.format.sampling == Storage::kFloat32) return attend_as<float>(work, task);
  if (work.format.sampling == Storage::kFloat16) return attend_as<Half>(work, task);
  return attend_as<BFloat16>(work, task);
}

}  // namespace
}  // namespace m2f::ms_deform_attn
