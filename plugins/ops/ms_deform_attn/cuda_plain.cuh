#pragma once

#include "common/storage.h"
#include "ops/ms_deform_attn/math.h"

// The op on CUDA for any sizes: one thread for each channel of the output. Threads of a head
// repeat each other's softmax and positions; cuda_tiled.cuh is the fast one.

namespace m2f::ms_deform_attn {

struct PlainJob {
  Shape shape;
  const void* value;
  const void* sampling;
  void* output;
  float value_scale;
};

constexpr int kPlainThreads = 128;

// The cell of query i of one image.
struct Cell {
  int32_t level;
  float centre_x, centre_y;  // as a share of the image
};

M2F_HD Cell cell_of(const Shape& s, int32_t i) {
  int32_t l = 0;
  while (l + 1 < s.levels && i >= s.level[l + 1].start) ++l;
  const Level& own = s.level[l];
  const int32_t y = (i - own.start) / own.width;
  const int32_t x = (i - own.start) - y * own.width;
  return {l, (static_cast<float>(x) + 0.5f) / static_cast<float>(own.width),
          (static_cast<float>(y) + 0.5f) / static_cast<float>(own.height)};
}

// One channel of one bilinear sample; `value` is that channel of the level's first pixel.
template <class V>
static __device__ float sample(const V* value, int64_t channels, const Level& level, float x,
                               float y) {
  const auto across = around(x, static_cast<float>(level.width));
  const auto down = around(y, static_cast<float>(level.height));
  const V* upper = value + int64_t{down.near} * level.width * channels;
  const V* lower = value + int64_t{down.far} * level.width * channels;
  const int64_t near = across.near * channels;
  const int64_t far = across.far * channels;
  return down.near_share * (across.near_share * to_float(upper[near]) +
                            across.far_share * to_float(upper[far])) +
         down.far_share * (across.near_share * to_float(lower[near]) +
                           across.far_share * to_float(lower[far]));
}

template <class V, class T>
__global__ void __launch_bounds__(kPlainThreads)
    plain_kernel(const __grid_constant__ PlainJob job) {
  const Shape& s = job.shape;
  const int64_t i = int64_t{blockIdx.x} * kPlainThreads + threadIdx.x;  // (n, q, m, d)
  if (i >= s.batch * s.positions * s.channels) return;
  const int64_t query = i / s.channels;  // (n, q)
  const int64_t n = query / s.positions;
  const int32_t channel = static_cast<int32_t>(i % s.channels);
  const int32_t m = channel / static_cast<int32_t>(s.depth());
  const int32_t samples = s.samples();
  const Cell cell = cell_of(s, static_cast<int32_t>(query % s.positions));

  const T* row = static_cast<const T*>(job.sampling) + query * s.sampling_width();
  const T* offsets = row + 2 * m * samples;
  const T* logits = row + (2 * s.heads + m) * samples;
  const V* image = static_cast<const V*>(job.value) + n * s.positions * s.channels + channel;

  float best = -INFINITY;
  for (int32_t j = 0; j < samples; ++j) best = at_least(to_float(logits[j]), best);
  float sum = 0.0f;
  float blend = 0.0f;
  for (int32_t j = 0; j < samples; ++j) {  // (l, p)
    const Level& level = s.level[j / s.points];
    const float x =
        coordinate(cell.centre_x, to_float(offsets[2 * j]), static_cast<float>(level.width));
    const float y = coordinate(cell.centre_y, to_float(offsets[2 * j + 1]),
                               static_cast<float>(level.height));
    const float weight = expf(to_float(logits[j]) - best);
    sum += weight;
    blend += weight * sample(image + level.start * s.channels, s.channels, level, x, y);
  }
  store(blend * (job.value_scale / sum), static_cast<T*>(job.output) + i);
}

}  // namespace m2f::ms_deform_attn
