#pragma once

#include "images/cuda_pixel.cuh"
#include "images/resize.h"

// Work:    a block is a tile of 8 rows of 32 pixels of the slot, a warp one of its rows. Both
//          passes happen in it: what the first makes of some input rows (or columns) waits in
//          shared memory as bytes, which the second adds up. So any ratio of sizes fits.
// Traffic: the image from caches, what several tiles need more than once; the slot once, its
//          padding included.
// Math:    fixed point with the CPU's weights, or its four nearest pixels: resize.h, math.h.

namespace m2f::images::resize {

constexpr int kRows = 8;
constexpr int kThreads = kRows * kWarp;

// Weights of one axis: weights.h, write_table.
struct DeviceTable {
  const int32_t* rows;
  int32_t stride;
};

struct DeviceJob {
  const uint8_t* image;  // [.., image_width, 3]
  int32_t image_height;
  int32_t image_width;
  DeviceTable rows;
  DeviceTable columns;
  uint8_t* slot;  // [padded_height, padded_width, 3]
  int32_t height;
  int32_t width;
  int32_t padded_height;
  int32_t padded_width;
};

// Inputs of one output element along an axis.
struct Span {
  int32_t begin;
  int32_t end;
  const int32_t* weight;
};

M2F_HD Span span_of(const DeviceTable& table, int32_t i) {
  const int32_t* row = table.rows + int64_t{i} * (2 + table.stride);
  return {row[0], row[0] + row[1], row + 2};
}

// The pixel that a thread makes; threads beyond the image make its last one again.
struct Place {
  int32_t y, x;
  bool has_image;  // somewhere in the block's tile
};

static __device__ __forceinline__ Place place_of(const DeviceJob& job) {
  const int32_t top = static_cast<int32_t>(blockIdx.y) * kRows;
  const int32_t left = static_cast<int32_t>(blockIdx.x) * kWarp;
  return {top + static_cast<int32_t>(threadIdx.x) / kWarp,
          left + static_cast<int32_t>(threadIdx.x) % kWarp,
          top < job.height && left < job.width};
}

// Red, green and blue.
struct Sums {
  int32_t channel[3] = {kFixedHalf, kFixedHalf, kFixedHalf};

  __device__ __forceinline__ void add(const uint8_t* pixel, int32_t weight) {
#pragma unroll
    for (int c = 0; c < 3; ++c) channel[c] += pixel[c] * weight;
  }
  __device__ __forceinline__ void add(uint32_t pixel, int32_t weight) {
#pragma unroll
    for (int c = 0; c < 3; ++c) {
      channel[c] += static_cast<int32_t>(pixel >> (8 * c) & 0xFFu) * weight;
    }
  }
  __device__ __forceinline__ uint32_t bytes() const {
    return byte_of_fixed(channel[0]) | uint32_t{byte_of_fixed(channel[1])} << 8 |
           uint32_t{byte_of_fixed(channel[2])} << 16;
  }
};

// The mean of the pixels of a span, `step` bytes apart; `pixel` is the first.
static __device__ __forceinline__ uint32_t mean_of(const uint8_t* pixel, int64_t step,
                                                   const Span& span) {
  Sums sums;
  for (int32_t i = 0; i < span.end - span.begin; ++i) {
    sums.add(pixel + i * step, __ldg(span.weight + i));
  }
  return sums.bytes();
}

// Adds what of a span lies in elements [begin, begin + count), which are `stride` apart.
static __device__ __forceinline__ void add_part(Sums& sums, const Span& span, int32_t begin,
                                                int32_t count, const uint32_t* elements,
                                                int32_t stride) {
  const int32_t end = min(span.end, begin + count);
  for (int32_t i = max(span.begin, begin); i < end; ++i) {
    sums.add(elements[(i - begin) * stride], __ldg(span.weight + (i - span.begin)));
  }
}

// Beyond the image the slot is zero, beyond the slot there is nothing.
static __device__ __forceinline__ void write(const DeviceJob& job, const Place& place,
                                             uint32_t bytes) {
  if (place.y >= job.padded_height || place.x >= job.padded_width) return;
  if (place.y >= job.height || place.x >= job.width) bytes = 0;
  uint8_t* pixel = job.slot + (int64_t{place.y} * job.padded_width + place.x) * 3;
#pragma unroll
  for (int c = 0; c < 3; ++c) pixel[c] = static_cast<uint8_t>(bytes >> (8 * c));
}

// Along columns first: each warp does so to one of eight input rows at a time.
__global__ void __launch_bounds__(kThreads)
    columns_first_kernel(const __grid_constant__ DeviceJob job) {
  __shared__ uint32_t narrow[kRows][kWarp];
  const int32_t warp = static_cast<int32_t>(threadIdx.x) / kWarp;
  const int32_t lane = static_cast<int32_t>(threadIdx.x) % kWarp;
  const Place place = place_of(job);
  Sums sums;
  if (place.has_image) {  // the whole block
    const int32_t top = place.y - warp;
    const Span row = span_of(job.rows, min(place.y, job.height - 1));
    const Span column = span_of(job.columns, min(place.x, job.width - 1));
    const int32_t end = span_of(job.rows, min(top + kRows, job.height) - 1).end;
    for (int32_t begin = span_of(job.rows, top).begin; begin < end; begin += kRows) {
      const int32_t y = begin + warp;
      if (y < end) {
        const int64_t first = int64_t{y} * job.image_width + column.begin;
        narrow[warp][lane] = mean_of(job.image + 3 * first, 3, column);
      }
      __syncthreads();
      add_part(sums, row, begin, kRows, &narrow[0][lane], kWarp);
      __syncthreads();
    }
  }
  write(job, place, sums.bytes());
}

// Along rows first: each warp does so to 32 input columns at a time, of its own output row.
__global__ void __launch_bounds__(kThreads)
    rows_first_kernel(const __grid_constant__ DeviceJob job) {
  __shared__ uint32_t flat[kRows][kWarp];
  const int32_t warp = static_cast<int32_t>(threadIdx.x) / kWarp;
  const int32_t lane = static_cast<int32_t>(threadIdx.x) % kWarp;
  const Place place = place_of(job);
  Sums sums;
  if (place.has_image) {
    const int32_t left = place.x - lane;
    const Span row = span_of(job.rows, min(place.y, job.height - 1));
    const Span column = span_of(job.columns, min(place.x, job.width - 1));
    const int32_t end = span_of(job.columns, min(left + kWarp, job.width) - 1).end;
    for (int32_t begin = span_of(job.columns, left).begin; begin < end; begin += kWarp) {
      const int32_t x = begin + lane;
      if (x < end) {
        const int64_t first = int64_t{row.begin} * job.image_width + x;
        flat[warp][lane] = mean_of(job.image + 3 * first, int64_t{3} * job.image_width, row);
      }
      __syncwarp();
      add_part(sums, column, begin, kWarp, flat[warp], 1);
      __syncwarp();
    }
  }
  write(job, place, sums.bytes());
}

// From the four nearest pixels, every product and sum rounded.
__global__ void __launch_bounds__(kThreads)
    nearest_four_kernel(const __grid_constant__ DeviceJob job) {
  const Place place = place_of(job);
  const Tap row = linear_tap(min(place.y, job.height - 1), static_cast<float>(job.image_height),
                             job.height, job.image_height - 1);
  const Tap column =
      linear_tap(min(place.x, job.width - 1), static_cast<float>(job.image_width), job.width,
                 job.image_width - 1);
  const auto between = [](const Tap& tap, float low, float high) {
    return __fadd_rn(__fmul_rn(low, tap.low_weight), __fmul_rn(high, tap.high_weight));
  };
  const uint8_t* low = job.image + int64_t{3} * row.low * job.image_width;
  const uint8_t* high = job.image + int64_t{3} * row.high * job.image_width;
  uint32_t bytes = 0;
#pragma unroll
  for (int c = 0; c < 3; ++c) {
    const int32_t left = 3 * column.low + c, right = 3 * column.high + c;
    const float mean = between(row, between(column, low[left], low[right]),
                               between(column, high[left], high[right]));
    bytes |= static_cast<uint32_t>(fminf(__fadd_rn(mean, 0.5f), 255.0f)) << (8 * c);
  }
  write(job, place, bytes);
}

}  // namespace m2f::images::resize
