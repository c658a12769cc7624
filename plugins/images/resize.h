#pragma once

#include <cstdint>

#include "common/host_device.h"

// Decoded images to another size, RGB in bytes, into rows of somebody else's batch.

namespace m2f::images::resize {

struct Image {
  const uint8_t* pixels;  // [height, width, 3], contiguous
  int64_t height;
  int64_t width;
};

// The place of an image in a batch: what it does not fill is made zero.
struct Slot {
  uint8_t* pixels;  // [padded_height, padded_width, 3], contiguous
  int64_t height;
  int64_t width;
  int64_t padded_height;
  int64_t padded_width;
};

// Weights of one axis: output i is a sum over inputs start[i] + [0, count[i]).
struct Weights {
  int64_t stride;
  const int32_t* start;
  const int32_t* count;
  const int32_t* weight;  // [outputs, stride], fixed point: math.h
};

constexpr int64_t kStripRows = 32;

// A task is a strip of output rows. Null weights: the axis is as it was.
struct Work {
  Image from;
  Slot to;
  Weights rows;
  Weights columns;
  int64_t most_rows;  // input rows behind any strip
  int64_t lanes;

  // Floats (or as many int32) of scratch memory: rows side by side in lanes, then bytes.
  M2F_HD_METHOD int64_t wide() const { return (from.width + 1) * lanes; }
  M2F_HD_METHOD int64_t row_bytes() const { return (3 * to.width + 67) / 64 * 64; }
  M2F_HD_METHOD int64_t scratch() const {
    return wide() + (most_rows + lanes) * row_bytes() / 4;
  }
};

enum class Filter : int32_t {
  kAntialiased = 0,  // Pillow's bilinear, to the bit
  kNearestFour = 1,  // from the four nearest pixels, in float32
};

}  // namespace m2f::images::resize
