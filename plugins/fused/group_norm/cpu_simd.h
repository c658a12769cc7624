#pragma once

#include "fused/group_norm/kernel.h"
#include "fused/moments_simd.h"

// GroupNorm in vectors, for one instruction set per inclusion.
//
// Work:    a task is a group, or a slice of one where groups are few or large.
// Traffic: a group is read once from where it lies, once more from the second cache (a slice:
//          from where it lies), and written once; a coarse map is read once, and enlarged row
//          by row in the first cache. Memory binds.
// Math:    moments.h, moments_simd.h, math.h. Not here: threads, memory, checks (op.cc).

namespace m2f::group_norm {
namespace {

constexpr int64_t kAhead = 1024;  // floats that are asked for before their turn

// A task's floats of its group.
struct Slice {
  int64_t group;  // (n, group)
  int64_t begin;
  int64_t end;
};

M2F_HD Slice slice_of(const Work& work, int64_t task) {
  const int64_t begin = task % work.slices() * work.slice();
  const int64_t left = work.shape.size() - begin;
  return {task / work.slices(), begin, begin + (left < work.slice() ? left : work.slice())};
}

void measure(const Work& work, int64_t task) {
  const Slice slice = slice_of(work, task);
  const float* x = work.x + slice.group * work.shape.size();
  fused::Moments* moments = work.moments + slice.group * work.parts();
  for (int64_t i = slice.begin; i < slice.end; i += kPart) {
    const int64_t left = slice.end - i;
    moments[i / kPart] = fused::moments(x + i, left < kPart ? left : kPart);
  }
}

// What is done to the values of one channel: (x - shift) * scale + offset, and `least` in place
// of what is below it; NaN stays.
struct Transform {
  float shift;
  float scale;
  float offset;
  float least;

  template <class Real>
  M2F_HD_METHOD Real operator()(Real x) const {
    const Real y = (x - shift) * scale + offset;
    return y < least ? splat<Real>(least) : y;
  }
};

M2F_HD void transform(const Transform& apply, const float* x, int64_t count, float* y) {
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    __builtin_prefetch(y + i + kAhead, 1);
    store_vector(apply(load(x + i)), y + i);
  }
  for (; i < count; ++i) y[i] = apply(x[i]);
}

M2F_HD void transform_and_add(const Transform& apply, const float* x, const float* addend,
                              int64_t count, float* y) {
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    __builtin_prefetch(y + i + kAhead, 1);
    store_vector(apply(load(x + i)) + load(addend + i), y + i);
  }
  for (; i < count; ++i) y[i] = apply(x[i]) + addend[i];
}

// Row `row` of a map twice as high and wide as `coarse` [height, width]; `between` has width +
// 2 floats. Plain loops: the compiler makes vectors of them.
M2F_HD void enlarge_row(const float* coarse, int64_t height, int64_t width, int64_t row,
                        float* __restrict between, float* __restrict to) {
  const float* near = coarse + row / 2 * width;
  const float* other = coarse + neighbour(row, height) * width;
  for (int64_t i = 0; i < width; ++i) between[i + 1] = blend(near[i], other[i]);
  between[0] = between[1];
  between[width + 1] = between[width];
  for (int64_t i = 0; i < width; ++i) {
    to[2 * i] = blend(between[i + 1], between[i]);
    to[2 * i + 1] = blend(between[i + 1], between[i + 2]);
  }
}

void normalise(const Work& work, int64_t task, float* memory) {
  const Shape& s = work.shape;
  const Slice slice = slice_of(work, task);
  const float* x = work.x + slice.group * s.size();
  float* y = work.output + slice.group * s.size();
  const fused::Moments m =
      fused::moments_of_parts(work.moments + slice.group * work.parts(), s.size(), kPart);
  const float scale = fused::inverse_deviation(m, s.size(), work.epsilon);
  const float least = work.is_rectified ? 0.0f : -__builtin_inff();
  const int64_t channels = s.channels / s.groups;
  // With a coarse map by rows, else by channels.
  const int64_t run = work.coarse == nullptr ? s.pixels() : s.width;
  float* addend = memory;
  float* between = memory + s.width;
  for (int64_t i = slice.begin; i < slice.end;) {
    const int64_t channel = i / s.pixels();
    const int64_t begin = i / run * run;
    const int64_t end = begin + run < slice.end ? begin + run : slice.end;
    const float weight = work.weight[slice.group % s.groups * channels + channel];
    const float bias = work.bias[slice.group % s.groups * channels + channel];
    const Transform apply = {m.shift, scale * weight, bias - m.rest * (scale * weight), least};
    if (work.coarse == nullptr) {
      transform(apply, x + i, end - i, y + i);
    } else {
      const float* map = work.coarse + (slice.group * channels + channel) * (s.pixels() / 4);
      enlarge_row(map, s.height / 2, s.width / 2, i % s.pixels() / s.width, between, addend);
      transform_and_add(apply, x + i, addend + (i - begin), end - i, y + i);
    }
    i = end;
  }
}

}  // namespace
}  // namespace m2f::group_norm
