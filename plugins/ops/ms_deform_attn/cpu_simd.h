#pragma once

#include "common/simd.h"
#include "ops/ms_deform_attn/kernel.h"

// Multi-scale deformable attention in vectors, for one instruction set per inclusion.
//
// Work:    a task is one head of kQueryTile consecutive queries. Lanes are samples (l, p) while
//          softmax and positions are computed, then channels while rows are blended.
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

// The rows of one query and head, and the share of each: four per sample, corner by corner.
struct Taps {
  alignas(64) int32_t row[4][kMaxSamples];
  alignas(64) float share[4][kMaxSamples];
};

// Raw outputs of the linear layer, de-interleaved. What lies past the last sample, where
// vectors reach, stays as clear() left it: at the query's own place, with no share.
struct Raw {
  alignas(64) float x[kMaxSamples];
  alignas(64) float y[kMaxSamples];
  alignas(64) float logit[kMaxSamples];
  alignas(64) float share[kMaxSamples];  // exp(logit - the largest)
};

M2F_HD void clear(Raw& raw) {
  for (int32_t j = 0; j < kMaxSamples; ++j) {
    raw.x[j] = raw.y[j] = 0.0f;
    raw.logit[j] = -__builtin_inff();
  }
}

template <class T>
M2F_HD void read(const T* offsets, const T* logits, int32_t samples, Raw& raw) {
  constexpr int32_t kFew = 4;  // a count the compiler knows becomes shuffles
  int32_t j = 0;
  for (; j + kFew <= samples; j += kFew) {
    float xy[2 * kFew];
    for (int32_t i = 0; i < 2 * kFew; ++i) xy[i] = to_float(offsets[2 * j + i]);
    for (int32_t i = 0; i < kFew; ++i) {
      raw.x[j + i] = xy[2 * i];
      raw.y[j + i] = xy[2 * i + 1];
      raw.logit[j + i] = to_float(logits[j + i]);
    }
  }
  for (; j < samples; ++j) {
    raw.x[j] = to_float(offsets[2 * j]);
    raw.y[j] = to_float(offsets[2 * j + 1]);
    raw.logit[j] = to_float(logits[j]);
  }
}

// Softmax up to a factor, which is returned.
M2F_HD float soften(Raw& raw, int32_t samples) {
  Floats best = load(raw.logit);
  for (int32_t j = kLanes; j < samples; j += kLanes) {
    const Floats x = load(raw.logit + j);
    best = best > x ? best : x;
  }
  const float peak = largest(best);
  Floats sum = splat<Floats>(0.0f);
  for (int32_t j = 0; j < samples; j += kLanes) {
    const Floats power = exp_nonpositive(load(raw.logit + j) - peak);
    store_vector(power, raw.share + j);
    sum += power;
  }
  return 1.0f / total(sum);
}

M2F_HD void locate(const Work& work, const Raw& raw, float centre_x, float centre_y,
                   float scale, Taps& taps) {
  const Floats cx = splat<Floats>(centre_x);
  const Floats cy = splat<Floats>(centre_y);
  for (int32_t j = 0; j < work.shape.samples(); j += kLanes) {
    const Floats width = load(work.width + j);
    const Floats height = load(work.height + j);
    const Ints stride = load(work.stride + j);
    const Ints start = load(work.start + j);
    const auto x = around(coordinate(cx, load(raw.x + j), width), width);
    const auto y = around(coordinate(cy, load(raw.y + j), height), height);
    const Floats weight = load(raw.share + j) * scale;
    const Ints upper = start + y.near * stride;
    const Ints lower = start + y.far * stride;
    const Floats upper_share = weight * y.near_share;
    const Floats lower_share = weight * y.far_share;
    store_vector(upper + x.near, taps.row[0] + j);
    store_vector(upper + x.far, taps.row[1] + j);
    store_vector(lower + x.near, taps.row[2] + j);
    store_vector(lower + x.far, taps.row[3] + j);
    store_vector(upper_share * x.near_share, taps.share[0] + j);
    store_vector(upper_share * x.far_share, taps.share[1] + j);
    store_vector(lower_share * x.near_share, taps.share[2] + j);
    store_vector(lower_share * x.far_share, taps.share[3] + j);
  }
}

// Blends kVectors vectors of channels of all rows. Two sets of sums where registers allow,
// because one would wait for each multiply-add to finish.
template <int kVectors>
M2F_HD void blend(const float* column, int64_t padded, const Taps& taps, int32_t samples,
                  float* to) {
  constexpr int kSets = kVectors <= 4 ? 2 : 1;
  Floats sum[kSets][kVectors];
  for (auto& set : sum) {
    for (auto& vector : set) vector = splat<Floats>(0.0f);
  }
  for (int32_t j = 0; j < samples; ++j) {
    for (int k = 0; k < 4; ++k) {
      const float* row = column + taps.row[k][j] * padded;
      const Floats share = splat<Floats>(taps.share[k][j]);
      for (int v = 0; v < kVectors; ++v) sum[k % kSets][v] += share * load(row + v * kLanes);
    }
  }
  for (int v = 0; v < kVectors; ++v) {
    if constexpr (kSets == 2) sum[0][v] += sum[1][v];
    store_vector(sum[0][v], to + v * kLanes);
  }
}

template <class T>
M2F_HD void blend_all(const float* column, const Work& work, const Taps& taps, T* output) {
  constexpr int kVectors = 32 / kLanes;  // 32 channels, what published models have
  constexpr int64_t kChunk = kVectors * kLanes;
  const int64_t depth = work.shape.depth();
  const int32_t samples = work.shape.samples();
  alignas(64) float chunk[kChunk];
  int64_t d = 0;
  for (; d + kChunk <= work.padded; d += kChunk) {
    blend<kVectors>(column + d, work.padded, taps, samples, chunk);
    const int64_t count = depth - d < kChunk ? depth - d : kChunk;
    for (int64_t i = 0; i < count; ++i) store(chunk[i], output + d + i);
  }
  for (; d < work.padded; d += kLanes) {
    blend<1>(column + d, work.padded, taps, samples, chunk);
    const int64_t count = depth - d < kLanes ? depth - d : kLanes;
    for (int64_t i = 0; i < count; ++i) store(chunk[i], output + d + i);
  }
}

// What a row of a tile needs, stage by stage: a stage reads what the one before wrote some time
// ago. One query at a time, each would wait for its own stores.
struct Row {
  Raw raw[kTileSide];
  Taps taps[kTileSide];
};

// One head of the queries of one row of a tile.
template <class T>
M2F_HD void attend_row(const Work& work, const Tile& tile, int32_t y, int64_t n, int64_t m,
                       Row& row) {
  const Shape& s = work.shape;
  const int32_t samples = s.samples();
  const Level& own = s.level[tile.level];
  const int32_t count = tile.right - tile.left;
  const int64_t query = n * s.positions + own.start + int64_t{y} * own.width + tile.left;
  const T* sampling = static_cast<const T*>(work.sampling) + query * s.sampling_width();
  for (int32_t i = 0; i < count; ++i) {
    const T* offsets = sampling + i * s.sampling_width();
    const T* logits = offsets + int64_t{2} * s.heads * samples;
    read(offsets + 2 * m * samples, logits + m * samples, samples, row.raw[i]);
  }
  const float centre_y = (static_cast<float>(y) + 0.5f) / static_cast<float>(own.height);
  for (int32_t i = 0; i < count; ++i) {
    const float x = static_cast<float>(tile.left + i) + 0.5f;
    const float scale = soften(row.raw[i], samples) * work.format.value_scale;
    locate(work, row.raw[i], x / static_cast<float>(own.width), centre_y, scale, row.taps[i]);
  }
  const float* column = work.columns + (n * s.heads + m) * s.positions * work.padded;
  T* output = static_cast<T*>(work.output) + query * s.channels + m * s.depth();
  for (int32_t i = 0; i < count; ++i) {
    blend_all(column, work, row.taps[i], output + i * s.channels);
  }
}

template <class T>
void attend_as(const Work& work, int64_t task) {
  const Tile tile = work.tile(task % work.tiles());
  Row row;
  for (Raw& raw : row.raw) clear(raw);
  for (int64_t m = 0; m < work.shape.heads; ++m) {
    for (int32_t y = tile.top; y < tile.bottom; ++y) {
      attend_row<T>(work, tile, y, task / work.tiles(), m, row);
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
