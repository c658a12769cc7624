#pragma once

#include "common/exp.h"
#include "common/simd.h"
#include "fused/window_attention/kernel.h"

// Shifted-window attention in vectors, for one instruction set per inclusion.
//
// Work:    a task is some heads of one window. Queries that would be cropped are left out; the
//          others are computed seven at a time, as 7 * 7 pixels ask for, and a last block is
//          filled up with repetitions. Lanes are keys while scores are made (those past the
//          last stay at -infinity), and channels while values are blended.
// Traffic: qkv and the output once. One head's q, k and v are packed into the first cache
//          (keys transposed); scores never leave it.
// Math:    math.h; sums in float. A window's softmax is over one row at once, so nothing is
//          rescaled. Not here: threads, memory, checks (op.cc).

namespace m2f::window_attention {
namespace {

// What a block of queries and its loads leave of 32 or 16 registers.
#if defined(__AVX512F__) || defined(__aarch64__)
constexpr int kScoreVectors = 3;
constexpr int kValueVectors = 2;
#else
constexpr int kScoreVectors = 1;
constexpr int kValueVectors = 1;
#endif

// Scratch memory of a task.
struct Tile {
  int64_t* place;  // [T]: pixel of each token, counted over the batch; -1 is padding
  float* keys;     // [D, keys]
  float* values;   // [T, padded]
  float* q;        // [queries, D], scaled
  float* score;    // [7, keys]
  float* region;   // [keys]: only tokens of equal regions see each other
  int32_t* token;  // [queries]: whose output is kept, whole blocks with repetitions
  int64_t count;   // of those
  bool has_regions;
};

M2F_HD Tile tile_in(const Work& work, float* memory) {
  const int64_t depth = work.shape.depth;
  Tile t = {};
  t.keys = memory;
  t.values = t.keys + work.keys * depth;
  t.score = t.values + work.shape.tokens() * work.padded;
  t.region = t.score + kQueries * work.keys;
  t.place = reinterpret_cast<int64_t*>(t.region + work.keys);
  t.q = t.region + work.keys + 2 * work.shape.tokens();
  t.token = reinterpret_cast<int32_t*>(t.q + work.queries() * depth);
  return t;
}

// Finds the pixels of a window.
M2F_HD void locate(const Work& work, const Window& window, Tile& t) {
  const Shape& s = work.shape;
  t.has_regions = window.region(s.window - 1, s.window - 1) != 0;
  t.count = 0;
  for (int64_t y = 0, i = 0; y < s.window; ++y) {
    for (int64_t x = 0; x < s.window; ++x, ++i) {
      t.place[i] = window.pixel(y, x);
      t.region[i] = static_cast<float>(window.region(y, x));
      t.token[t.count] = static_cast<int32_t>(i);
      t.count += t.place[i] < 0 ? 0 : 1;
    }
  }
  for (int64_t i = s.tokens(); i < work.keys; ++i) t.region[i] = 0.0f;
  for (; t.count % kQueries != 0; ++t.count) t.token[t.count] = t.token[t.count - 1];
}

// Asks for a row of pixels of one head, if there is such a row and head.
M2F_HD void fetch(const Work& work, const Window& window, int64_t head, int64_t y) {
  constexpr int64_t kLine = 64 / sizeof(float);
  const Shape& s = work.shape;
  if (y >= s.window || head >= s.heads) return;
  for (int64_t x = 0; x < s.window; ++x) {
    const int64_t pixel = window.pixel(y, x);
    if (pixel < 0) continue;
    const float* from = work.qkv + pixel * 3 * s.channels() + head * s.depth;
    for (int64_t d = 0; d < s.depth; d += kLine) {
      for (int64_t i = 0; i < 3; ++i) __builtin_prefetch(from + i * s.channels() + d, 0, 2);
    }
  }
}

M2F_HD void copy(const float* from, int64_t count, float scale, float* to) {
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) store_vector(load(from + i) * scale, to + i);
  for (; i < count; ++i) to[i] = from[i] * scale;
}

M2F_HD void transpose(const float* const (&from)[4], int64_t depth, float* to, int64_t pitch) {
  int64_t d = 0;
  for (; d + 4 <= depth; d += 4) {
    const Quad square[4] = {load_quad(from[0] + d), load_quad(from[1] + d),
                            load_quad(from[2] + d), load_quad(from[3] + d)};
    store_transposed(square, to + d * pitch, pitch);
  }
  for (; d < depth; ++d) {
    for (int64_t i = 0; i < 4; ++i) to[d * pitch + i] = from[i][d];
  }
}

// Packs q, k and v of one head.
M2F_HD void pack(const Work& work, int64_t head, const Tile& t) {
  const Shape& s = work.shape;
  const int64_t channels = s.channels();
  const float* qkv = work.qkv + head * s.depth;
  const float* padding = work.padding + head * s.depth;
  const auto token = [&](int64_t i) {
    return t.place[i] < 0 ? padding : qkv + t.place[i] * 3 * channels;
  };
  const float scale = 1.0f / __builtin_sqrtf(static_cast<float>(s.depth));
  for (int64_t i = 0; i < t.count; ++i) {
    copy(token(t.token[i]), s.depth, scale, t.q + i * s.depth);
  }
  int64_t i = 0;
  for (; i + 4 <= s.tokens(); i += 4) {
    const float* const four[4] = {token(i) + channels, token(i + 1) + channels,
                                  token(i + 2) + channels, token(i + 3) + channels};
    transpose(four, s.depth, t.keys + i, work.keys);
  }
  for (; i < s.tokens(); ++i) {
    const float* k = token(i) + channels;
    for (int64_t d = 0; d < s.depth; ++d) t.keys[d * work.keys + i] = k[d];
  }
  for (i = 0; i < s.tokens(); ++i) {
    copy(token(i) + 2 * channels, s.depth, 1.0f, t.values + i * work.padded);
  }
}

// What is added to the products of one query.
M2F_HD void begin(const Work& work, const Tile& t, int64_t head, int32_t token, float* score) {
  const int64_t tokens = work.shape.tokens();
  const float* bias = work.position_bias + (head * tokens + token) * tokens;
  store_vector(splat<Floats>(-__builtin_inff()), score + work.keys - kLanes);
  int64_t i = 0;
  for (; i + kLanes <= tokens; i += kLanes) store_vector(load(bias + i), score + i);
  for (; i < tokens; ++i) score[i] = bias[i];
  if (!t.has_regions) return;
  const Floats own = splat<Floats>(t.region[token]);
  for (i = 0; i < work.keys; i += kLanes) {
    const Floats hidden = splat<Floats>(kHidden);
    const Floats apart = load(t.region + i) != own ? hidden : splat<Floats>(0.0f);
    store_vector(load(score + i) + apart, score + i);
  }
}

// score[r][i] += q[r] . key[i] for some vectors of keys.
template <int kVectors>
M2F_HD void multiply_keys(const Work& work, const Tile& t, const float* q, int64_t i) {
  const int64_t depth = work.shape.depth;
  Floats sum[kQueries][kVectors];
  for (int r = 0; r < kQueries; ++r) {
    const float* from = t.score + r * work.keys + i;
    for (int v = 0; v < kVectors; ++v) sum[r][v] = load(from + v * kLanes);
  }
  for (int64_t d = 0; d < depth; ++d) {
    Floats key[kVectors];
    for (int v = 0; v < kVectors; ++v) key[v] = load(t.keys + d * work.keys + i + v * kLanes);
    for (int r = 0; r < kQueries; ++r) {
      const Floats x = splat<Floats>(q[r * depth + d]);
      for (int v = 0; v < kVectors; ++v) sum[r][v] += x * key[v];
    }
  }
  for (int r = 0; r < kQueries; ++r) {
    float* to = t.score + r * work.keys + i;
    for (int v = 0; v < kVectors; ++v) store_vector(sum[r][v], to + v * kLanes);
  }
}

// Turns the scores of one query into weights; returns the inverse of their sum.
M2F_HD float soften(float* score, int64_t keys) {
  Floats peak = load(score);
  for (int64_t i = kLanes; i < keys; i += kLanes) {
    const Floats x = load(score + i);
    peak = x > peak ? x : peak;
  }
  const Floats shift = splat<Floats>(largest(peak));
  Floats sum = splat<Floats>(0.0f);
  for (int64_t i = 0; i < keys; i += kLanes) {
    const Floats power = exp_nonpositive(load(score + i) - shift);
    store_vector(power, score + i);
    sum += power;
  }
  return 1.0f / total(sum);
}

// output[r] = scale[r] * weights . values, for some vectors of channels.
template <int kVectors>
M2F_HD void blend(const Work& work, const Tile& t, const float (&scale)[kQueries],
                  float* const (&output)[kQueries], int64_t d) {
  Floats sum[kQueries][kVectors];
  for (int r = 0; r < kQueries; ++r) {
    for (int v = 0; v < kVectors; ++v) sum[r][v] = splat<Floats>(0.0f);
  }
  for (int64_t i = 0; i < work.shape.tokens(); ++i) {
    const float* from = t.values + i * work.padded + d;
    Floats value[kVectors];
    for (int v = 0; v < kVectors; ++v) value[v] = load(from + v * kLanes);
    for (int r = 0; r < kQueries; ++r) {
      const Floats x = splat<Floats>(t.score[r * work.keys + i]);
      for (int v = 0; v < kVectors; ++v) sum[r][v] += x * value[v];
    }
  }
  for (int r = 0; r < kQueries; ++r) {
    for (int v = 0; v < kVectors; ++v) {
      const int64_t left = work.shape.depth - d - v * kLanes;
      const Floats x = sum[r][v] * scale[r];
      float* to = output[r] + d + v * kLanes;
      if (left >= kLanes) {
        store_vector(x, to);
      } else {
        for (int64_t lane = 0; lane < left; ++lane) to[lane] = x[lane];
      }
    }
  }
}

// One block of queries, from the `first` of those that are kept.
M2F_HD void attend_block(const Work& work, const Tile& t, int64_t head, int64_t first) {
  const Shape& s = work.shape;
  for (int r = 0; r < kQueries; ++r) {
    begin(work, t, head, t.token[first + r], t.score + r * work.keys);
  }
  const float* q = t.q + first * s.depth;
  int64_t i = 0;
  for (; i + kScoreVectors * kLanes <= work.keys; i += kScoreVectors * kLanes) {
    multiply_keys<kScoreVectors>(work, t, q, i);
  }
  for (; i < work.keys; i += kLanes) multiply_keys<1>(work, t, q, i);

  float scale[kQueries];
  float* output[kQueries];
  for (int r = 0; r < kQueries; ++r) {
    scale[r] = soften(t.score + r * work.keys, work.keys);
    output[r] = work.output + t.place[t.token[first + r]] * s.channels() + head * s.depth;
  }
  int64_t d = 0;
  for (; d + kValueVectors * kLanes <= work.padded; d += kValueVectors * kLanes) {
    blend<kValueVectors>(work, t, scale, output, d);
  }
  for (; d < work.padded; d += kLanes) blend<1>(work, t, scale, output, d);
}

void attend(const Work& work, int64_t task, float* memory) {
  const Shape& s = work.shape;
  Tile t = tile_in(work, memory);
  locate(work, window_of(s, task / work.groups()), t);
  // The last lanes, which packing leaves as they are, must not be NaN.
  const Floats zero = splat<Floats>(0.0f);
  for (int64_t d = 1; d <= s.depth; ++d) store_vector(zero, t.keys + d * work.keys - kLanes);
  for (int64_t i = 1; i <= s.tokens(); ++i) {
    store_vector(zero, t.values + i * work.padded - kLanes);
  }
  // Threads mostly take one task after another.
  const int64_t after = task + 1 < work.tasks() ? task + 1 : task;
  const Window next = window_of(s, after / work.groups());
  const int64_t size = work.group_size();
  const int64_t begin = task % work.groups() * size;
  const int64_t end = begin + size < s.heads ? begin + size : s.heads;
  for (int64_t head = begin; head < end; ++head) {
    const int64_t head_after = after % work.groups() * size + head - begin;
    pack(work, head, t);
    for (int64_t i = 0; i < t.count; i += kQueries) {
      fetch(work, next, head_after, i / kQueries);
      attend_block(work, t, head, i);
    }
  }
}

}  // namespace
}  // namespace m2f::window_attention
