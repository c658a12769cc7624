#pragma once

#include "common/host_device.h"

namespace m2f::group_norm {

struct Shape {
  int64_t batch;     // N
  int64_t channels;  // C
  int64_t height;    // H
  int64_t width;     // W
  int64_t groups;

  M2F_HD_METHOD int64_t pixels() const { return height * width; }
  M2F_HD_METHOD int64_t all_groups() const { return batch * groups; }
  // Floats of one group, which lie side by side.
  M2F_HD_METHOD int64_t size() const { return channels / groups * pixels(); }
};

// A pixel of a map enlarged twofold, along one axis: pixel 2 i + 0 lies at i - 1/4 of the
// coarse one, pixel 2 i + 1 at i + 1/4.
M2F_HD float blend(float near, float other) { return near * 0.75f + other * 0.25f; }

// The other pixel, of `count`: the edges repeat.
M2F_HD int64_t neighbour(int64_t fine, int64_t count) {
  const int64_t near = fine / 2;
  if (fine % 2 == 0) return near > 0 ? near - 1 : near;
  return near + 1 < count ? near + 1 : near;
}

}  // namespace m2f::group_norm
