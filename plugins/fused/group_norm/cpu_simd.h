#pragma once

#include "fused/group_norm/kernel.h"
#include "fused/moments_simd.h"

// GroupNorm in vectors, for one instruction set per inclusion.
//
// Work:    a task is a group, or a slice of one where groups are few or large.
// Traffic: a group is read once from where it lies, once more from the second cache (a slice:
//          from where it lies), and written once. Memory binds.
// Math:    moments.h, moments_simd.h. Not here: threads, memory, checks (op.cc).

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

// (x - shift) * scale + offset, and `least` in place of what is below it; NaN stays.
M2F_HD void transform(const float* x, int64_t count, float shift, float scale, float offset,
                      float least, float* y) {
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    __builtin_prefetch(y + i + kAhead, 1);
    const Floats moved = (load(x + i) - shift) * scale + offset;
    store_vector(moved < least ? splat<Floats>(least) : moved, y + i);
  }
  for (; i < count; ++i) {
    const float moved = (x[i] - shift) * scale + offset;
    y[i] = moved < least ? least : moved;
  }
}

void normalise(const Work& work, int64_t task) {
  const Shape& s = work.shape;
  const Slice slice = slice_of(work, task);
  const float* x = work.x + slice.group * s.size();
  float* y = work.output + slice.group * s.size();
  const fused::Moments m =
      fused::moments_of_parts(work.moments + slice.group * work.parts(), s.size(), kPart);
  const float unit = fused::inverse_deviation(m, s.size(), work.epsilon);
  const float least = work.is_rectified ? 0.0f : -__builtin_inff();
  const int64_t first = slice.group % s.groups * (s.channels / s.groups);
  for (int64_t i = slice.begin; i < slice.end;) {
    const int64_t channel = i / s.pixels;
    const int64_t last = (channel + 1) * s.pixels;
    const int64_t end = last < slice.end ? last : slice.end;
    const float scale = unit * work.weight[first + channel];
    const float offset = work.bias[first + channel] - m.rest * scale;
    transform(x + i, end - i, m.shift, scale, offset, least, y + i);
    i = end;
  }
}

}  // namespace
}  // namespace m2f::group_norm
