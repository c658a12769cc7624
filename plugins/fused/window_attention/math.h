#pragma once

#include "common/exp.h"
#include "common/host_device.h"

// The decisions of shifted-window attention (Liu et al., Swin Transformer, ICCV 2021, sections
// 3.1 and 3.2).

namespace m2f::window_attention {

// Added to scores of pixels that only the roll brought together. Swin's own code adds -100,
// which leaves weights of about 1e-44: nothing beside one, but slow where they are subnormal.
constexpr float kHidden = -1e4f;

struct Shape {
  int64_t batch;   // N
  int64_t height;  // H
  int64_t width;   // W
  int64_t heads;   // M
  int64_t depth;   // D
  int64_t window;  // w, side
  int64_t shift;   // pixels, below w

  M2F_HD_METHOD int64_t channels() const { return heads * depth; }
  M2F_HD_METHOD int64_t tokens() const { return window * window; }
  M2F_HD_METHOD int64_t pixels() const { return batch * height * width; }

  // Windows, down and across.
  M2F_HD_METHOD int64_t rows() const { return (height + window - 1) / window; }
  M2F_HD_METHOD int64_t columns() const { return (width + window - 1) / window; }
};

// One axis of one window. The map is padded to whole windows and rolled towards its origin
// before it is cut.
struct Span {
  int64_t size;    // of the map
  int64_t padded;  // size of the padded map
  int64_t first;   // the window's first pixel in the padded map
  int64_t seam;    // its pixels from here on come from the map's other end

  // Where the i-th pixel of the window lies in the padded map.
  M2F_HD_METHOD int64_t place(int64_t i) const {
    return first + i < padded ? first + i : first + i - padded;
  }
  M2F_HD_METHOD bool is_padding(int64_t i) const { return place(i) >= size; }
  M2F_HD_METHOD int32_t end(int64_t i) const { return i >= seam ? 1 : 0; }
};

M2F_HD Span span_of(const Shape& s, int64_t size, int64_t count, int64_t index) {
  const int64_t padded = count * s.window;
  const int64_t first = index * s.window + s.shift;
  return {size, padded, first, padded - first};
}

// One window of a batch of maps.
struct Window {
  int64_t first;  // pixel of the map, counted over the batch
  Span rows;
  Span columns;

  // Which pixel of the batch; -1 is padding.
  M2F_HD_METHOD int64_t pixel(int64_t y, int64_t x) const {
    const bool is_padding = rows.is_padding(y) || columns.is_padding(x);
    return is_padding ? -1 : first + rows.place(y) * columns.size + columns.place(x);
  }

  // Pixels of different regions do not see each other.
  M2F_HD_METHOD int32_t region(int64_t y, int64_t x) const {
    return 2 * rows.end(y) + columns.end(x);
  }
};

M2F_HD Window window_of(const Shape& s, int64_t index) {
  const int64_t column = index % s.columns(), row = index / s.columns() % s.rows();
  const int64_t image = index / s.columns() / s.rows();
  return {image * s.height * s.width, span_of(s, s.height, s.rows(), row),
          span_of(s, s.width, s.columns(), column)};
}

}  // namespace m2f::window_attention
