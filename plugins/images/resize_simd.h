#pragma once

#include "common/simd.h"
#include "images/resize.h"

// Work:    a task is a strip of output rows. First the input rows behind it are resized along
//          columns, as many at a time as there are pixels in a vector: a pixel takes four
//          lanes (red, green, blue, nothing), all rows share a weight. Then columns of bytes.
// Traffic: the image once, a few rows at the seams of strips twice; the output once.
// Math:    fixed point, as Pillow: each of the two passes rounds to bytes.
//          Not here: weights, threads, memory (resize.cc).

namespace m2f::images::resize {
namespace {

constexpr int64_t kTogether = kLanes / 4;  // rows
using FourBytes = uint8_t __attribute__((vector_size(4)));
using FourInts = int32_t __attribute__((vector_size(16)));
using Bytes = uint8_t __attribute__((vector_size(kLanes)));

M2F_HD Bytes rounded(Ints sum) {
  const Ints level = sum >> kFixedBits;
  const Ints positive = level > 0 ? level : Ints{};
  return __builtin_convertvector(positive < 255 ? positive : Ints{} + 255, Bytes);
}

// Resizes up to kTogether rows along columns; rows of `to` are `row_bytes` apart.
M2F_HD void resize_columns(const Work& work, int64_t row, int64_t count, int32_t* wide,
                           uint8_t* to) {
  const int64_t width = work.from.width;
  if (count < kTogether) {  // lanes of rows that are not there are computed with, too
    __builtin_memset(wide, 0, static_cast<size_t>(width * kLanes) * sizeof *wide);
  }
  for (int64_t r = 0; r < count; ++r) {
    const uint8_t* from = work.from.pixels + (row + r) * width * 3;
    int32_t* pixel = wide + r * 4;
    for (int64_t x = 0; x + 1 < width; ++x, pixel += kLanes) {
      FourBytes rgb;  // and the next pixel's red, which nobody looks at
      __builtin_memcpy(&rgb, from + 3 * x, sizeof rgb);
      const FourInts wider = __builtin_convertvector(rgb, FourInts);
      __builtin_memcpy(pixel, &wider, sizeof wider);
    }
    for (int64_t c = 0; c < 3; ++c) pixel[c] = from[3 * (width - 1) + c];
    pixel[3] = 0;
  }
  const Weights& columns = work.columns;
  for (int64_t x = 0; x < work.to.width; ++x) {
    const int32_t* weight = columns.weight + x * columns.stride;
    const int32_t* pixel = wide + columns.start[x] * kLanes;
    Ints sum = Ints{} + kFixedHalf;
    for (int32_t t = 0; t < columns.count[x]; ++t) {
      sum += load(pixel + t * kLanes) * weight[t];
    }
    const Bytes bytes = rounded(sum);
    for (int64_t r = 0; r < count; ++r) {
      // Four bytes, of which the next pixel overwrites the last.
      __builtin_memcpy(to + r * work.row_bytes() + 3 * x,
                       reinterpret_cast<const char*>(&bytes) + 4 * r, 4);
    }
  }
}

// One output row from rows that have its width already, `stride` bytes apart.
M2F_HD void resize_rows(const Work& work, int64_t y, const uint8_t* from, int64_t stride,
                        uint8_t* to) {
  const int32_t* weight = work.rows.weight + y * work.rows.stride;
  const int32_t count = work.rows.count[y];
  const int64_t bytes = 3 * work.to.width;
  int64_t i = 0;
  for (; i + kLanes <= bytes; i += kLanes) {
    Ints sum = Ints{} + kFixedHalf;
    for (int32_t t = 0; t < count; ++t) {
      Bytes row;
      __builtin_memcpy(&row, from + t * stride + i, sizeof row);
      sum += __builtin_convertvector(row, Ints) * weight[t];
    }
    const Bytes row = rounded(sum);
    __builtin_memcpy(to + i, &row, sizeof row);
  }
  for (; i < bytes; ++i) {
    int32_t sum = kFixedHalf;
    for (int32_t t = 0; t < count; ++t) sum += from[t * stride + i] * weight[t];
    to[i] = byte_of_fixed(sum);
  }
}

M2F_HD void clear(uint8_t* from, const uint8_t* end) {
  if (end > from) __builtin_memset(from, 0, static_cast<size_t>(end - from));
}

void antialiased(const Work& work, int64_t strip, float* memory) {
  const Slot& to = work.to;
  const int64_t begin = strip * kStripRows;
  const int64_t stop =
      begin + kStripRows < to.padded_height ? begin + kStripRows : to.padded_height;
  const int64_t end = stop < to.height ? stop : to.height;
  const int64_t row_bytes = 3 * to.padded_width;
  for (int64_t y = begin; y < stop; ++y) {
    const int64_t filled = y < to.height ? 3 * to.width : 0;
    clear(to.pixels + y * row_bytes + filled, to.pixels + (y + 1) * row_bytes);
  }
  if (begin >= end) return;

  const bool has_rows = work.rows.weight != nullptr;
  const int64_t first = has_rows ? work.rows.start[begin] : begin;
  const int64_t last = has_rows ? work.rows.start[end - 1] + work.rows.count[end - 1] : end;
  const uint8_t* from = work.from.pixels + first * work.from.width * 3;
  int64_t stride = work.from.width * 3;
  if (work.columns.weight != nullptr) {
    int32_t* wide = reinterpret_cast<int32_t*>(memory);
    uint8_t* narrow = reinterpret_cast<uint8_t*>(memory + work.wide());
    stride = work.row_bytes();
    for (int64_t row = first; row < last; row += kTogether) {
      const int64_t count = last - row < kTogether ? last - row : kTogether;
      resize_columns(work, row, count, wide, narrow + (row - first) * stride);
    }
    from = narrow;
  }
  for (int64_t y = begin; y < end; ++y) {
    uint8_t* row = to.pixels + y * row_bytes;
    if (has_rows) {
      resize_rows(work, y, from + (work.rows.start[y] - first) * stride, stride, row);
    } else {
      __builtin_memcpy(row, from + (y - first) * stride, static_cast<size_t>(3 * to.width));
    }
  }
}

}  // namespace
}  // namespace m2f::images::resize
