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
};

// One axis of one window. The map is padded to whole windows and rolled towards its origin by
// `shift` before it is cut.
struct Span {
  int64_t size;    // of the map
  int64_t window;  // w
  int64_t first;   // of the window's pixels, in the padded map
  int64_t seam;  // the pixels from here on come from the map's other side; w if there are none

  M2F_HD_METHOD int64_t padded() const { return (size + window - 1) / window * window; }

  // Where the i-th pixel of the window lies in the padded map.
  M2F_HD_METHOD int64_t place(int64_t i) const {
    const int64_t rolled = first + i;
    return rolled < padded() ? rolled : rolled - padded();
  }
  M2F_HD_METHOD bool is_padding(int64_t i) const { return place(i) >= size; }

  // Pixels of different sides do not see each other.
  M2F_HD_METHOD int32_t side(int64_t i) const { return i >= seam ? 1 : 0; }
};

M2F_HD int64_t windows_along(int64_t size, int64_t window) {
  return (size + window - 1) / window;
}

M2F_HD Span span_of(const Shape& s, int64_t size, int64_t index) {
  const bool is_last = index + 1 == windows_along(size, s.window);
  return {size, s.window, index * s.window + s.shift, is_last ? s.window - s.shift : s.window};
}

}  // namespace m2f::window_attention
