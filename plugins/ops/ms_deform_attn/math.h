#pragma once

#include "common/exp.h"
#include "common/host_device.h"
#include "common/storage.h"

// Geometry of multi-scale deformable attention (Zhu et al., ICLR 2021, eq. 2).
//
// Written once, over `Real`: the plain loops, the vector kernels and CUDA sample through
// around(). Each keeps its own loops and loads, because that is where they differ; none has
// its own idea of where a point falls.

namespace m2f::ms_deform_attn {

constexpr int32_t kMaxLevels = 8;
constexpr int32_t kMaxSamples = 64;  // levels * points

struct Level {
  int32_t height;  // pixels, at least 1
  int32_t width;   // pixels, at least 1
  int32_t start;   // first row of this level in value[:, S]
};

struct Shape {
  int64_t batch;      // N
  int64_t positions;  // S, of all levels
  int64_t channels;   // C
  int32_t heads;      // M
  int32_t points;     // P
  int32_t levels;     // L
  Level level[kMaxLevels];

  M2F_HD_METHOD int64_t depth() const { return channels / heads; }
  M2F_HD_METHOD int32_t samples() const { return levels * points; }
  M2F_HD_METHOD int64_t sampling_width() const { return int64_t{3} * heads * samples(); }
};

// How the tensors of one call are stored. An int8 value times value_scale is what it stands
// for; the scale joins the softmax weights, so that it costs one product per query and head.
struct Format {
  Storage value = Storage::kFloat32;     // that of `sampling`, or int8
  Storage sampling = Storage::kFloat32;  // and of the output
  float value_scale = 1.0f;
};

// The two pixels around a coordinate along one axis. Both lie in the level always, so that a
// backend may load them unconditionally; one that lies outside has share 0.
template <class Real>
struct Pair {
  typename Lane<Real>::Int near;
  typename Lane<Real>::Int far;
  Real near_share;
  Real far_share;
};

// `centre` is that of the query's own cell as a share of the image, `size` the level's, pixels.
// Pixel centres sit at half integers (align_corners=False).
//
// Coordinates are float for every storage type: half has 11 significant bits, at a width of 256
// one step near the right edge is 1/8 pixel, which moves mask borders.
template <class Real>
M2F_HD Real coordinate(Real centre, Real offset, Real size) {
  return centre * size + offset - 0.5f;
}

template <class Real>
M2F_HD Pair<Real> around(Real place, Real size) {
  // One pixel beyond the border every share is 0 already: clamping there changes nothing, and
  // keeps the cast to integers defined for any offset, NaN included.
  place = at_most(at_least(place, splat<Real>(-1.0f)), size);
  const Real truncated = Lane<Real>::to_float(Lane<Real>::to_int(place));
  const Real low = truncated > place ? truncated - 1.0f : truncated;
  const Real high = low + 1.0f;
  const Real fraction = place - low;
  const Real zero = splat<Real>(0.0f);
  const Real last = size - 1.0f;
  const Real near = at_least(at_most(low, last), zero);
  const Real far = at_least(at_most(high, last), zero);
  return {Lane<Real>::to_int(near), Lane<Real>::to_int(far),
          near == low ? 1.0f - fraction : zero, far == high ? fraction : zero};
}

// The same two pixels for levels at least two pixels long, where the second can always be the
// one after the first: nothing then has to be said about it.
struct Window {
  int32_t first;
  float first_share;
  float second_share;
};

// Linear interpolation weighs a pixel by how near it is; one that is not next to `place` has no
// share, whatever window was chosen. Nor has any if place is NaN.
M2F_HD float share_of(float pixel, float place) {
  return saturate(1.0f - absolute(place - pixel));
}

M2F_HD Window window(float place, float size) {
  // 1.5 * 2^23: adding it rounds to an integer and leaves that in the low bits. Where place is
  // an integer it is one of the two pixels, and either window serves.
  constexpr float kMagic = 12582912.0f;
  constexpr int32_t kMagicBits = 0x4B400000;
  const float shifted = at_most(at_least(place - 0.5f, 0.0f), size - 2.0f) + kMagic;
  const float first = shifted - kMagic;
  return {static_cast<int32_t>(bits_from_float(shifted)) - kMagicBits, share_of(first, place),
          share_of(first + 1.0f, place)};
}

}  // namespace m2f::ms_deform_attn
