#pragma once

#include <math.h>

#include <cstdint>

#include "common/host_device.h"

// What image processing decides, once for every backend: where a resized element lies, in which
// order it is rounded, what a probability is, and how sure a bound is. No loops, no memory.

namespace m2f::images {

// One element of a linearly resized axis: low_weight * in[low] + high_weight * in[high].
struct Tap {
  int32_t low;
  int32_t high;
  float low_weight;
  float high_weight;
};

// Element `index` of an axis of `target` elements made from the first `extent` of an axis whose
// last element that takes part is `last`. Pixel centres lie at halves, edges repeat
// (`align_corners=False`); the position is rounded once, as PyTorch's kernels do.
M2F_HD Tap linear_tap(int64_t index, float extent, int64_t target, int64_t last) {
  const float scale = extent / static_cast<float>(target);
  const float position = fmaf(scale, static_cast<float>(index) + 0.5f, -0.5f);
  const float inside = position > 0.0f ? position : 0.0f;
  const int64_t floor = static_cast<int64_t>(inside);
  Tap tap;
  tap.low = static_cast<int32_t>(floor < last ? floor : last);
  tap.high = static_cast<int32_t>(tap.low < last ? tap.low + 1 : last);
  const float fraction = inside - static_cast<float>(tap.low);
  tap.high_weight = fraction < 1.0f ? fraction : 1.0f;
  tap.low_weight = 1.0f - tap.high_weight;
  return tap;
}

// The last element that takes part of an axis: what lies beyond `extent` is padding.
M2F_HD int64_t last_within(int64_t source, double extent) {
  const int64_t end = static_cast<int64_t>(ceil(extent));
  return (end < source ? end : source) - 1;
}

// Along columns first, then along rows, each rounded as PyTorch's kernels do: the product with
// the higher neighbour is rounded, the other is not.
template <class Real>
M2F_HD Real interpolate(Real low, Real high, Real low_weight, Real high_weight) {
  return Lane<Real>::multiply_add(low, low_weight, high * high_weight);
}

// 1 / (1 + exp(-x)) as it is defined, and not by cases of x: its rounding decides whether a
// logit just below zero is one half. Below -88.72 exp is infinite, and the answer 0.
template <class Real>
M2F_HD Real sigmoid(Real x) {
  constexpr float kMagic = 12582912.0f;  // as in common/exp.h, whose series this is
  constexpr uint32_t kMagicBits = 0x4B400000u;
  constexpr float kLargest = 88.72283f;  // the logarithm of the largest float
  const Real y = at_least(at_most(-x, splat<Real>(kLargest)), splat<Real>(-87.0f));
  const Real shifted = y * 1.44269504f + kMagic;
  const Real n = shifted - kMagic;
  const Real r = (y - n * 0.693359375f) + n * 2.12194440e-4f;
  Real p = r * (1.0f / 5040.0f) + 1.0f / 720.0f;
  p = p * r + 1.0f / 120.0f;
  p = p * r + 1.0f / 24.0f;
  p = p * r + 1.0f / 6.0f;
  p = p * r + 0.5f;
  p = p * r + 1.0f;
  p = p * r + 1.0f;
  // 2^n in two factors: n may be 128, for which a float has no exponent.
  const Real power = Lane<Real>::power_of_two(shifted - 1.0f, kMagicBits);
  const Real probability = 1.0f / (1.0f + (p + p) * power);
  return x < splat<Real>(-kLargest) ? splat<Real>(0.0f) : probability;
}

// Bounds of what is interpolated between elements from `low` to `high`. Interpolation is a mean
// up to rounding: four times two products and weights that add up to 1 within a rounding.
struct Bounds {
  float low;
  float high;
};

M2F_HD Bounds widened(Bounds b) {
  constexpr float kRoundings = 16.0f / (1 << 24);
  const float a = b.low < 0.0f ? -b.low : b.low;
  const float c = b.high < 0.0f ? -b.high : b.high;
  const float slack = kRoundings * (a > c ? a : c);
  return {b.low - slack, b.high + slack};
}

constexpr float kRounding = 1.0f / (1 << 24);  // relative, of a float32 result

// Relative error of a probability, of a probability that was interpolated, and of a sum of
// `terms` such (none negative): their bounds are trusted no further than this.
M2F_HD float slack_of_sum(int64_t terms) {
  return static_cast<float>(terms + 32) * (2.0f * kRounding);
}

// Pillow's bilinear filter: a triangle, widened by the factor of shrinking.
M2F_HD double triangle(double x) {
  const double distance = x < 0.0 ? -x : x;
  return distance < 1.0 ? 1.0 - distance : 0.0;
}

// Its weights as integers: 8 bits are the pixel's, 2 spare.
constexpr int kFixedBits = 32 - 8 - 2;

M2F_HD int32_t fixed_weight(double weight) {
  return static_cast<int32_t>(weight * (1 << kFixedBits) + (weight < 0.0 ? -0.5 : 0.5));
}

// The byte of a sum of pixels times weights, half a level already in it.
constexpr int32_t kFixedHalf = 1 << (kFixedBits - 1);

M2F_HD uint8_t byte_of_fixed(int32_t sum) {
  const int32_t level = sum >> kFixedBits;
  return static_cast<uint8_t>(level < 0 ? 0 : level > 255 ? 255 : level);
}

}  // namespace m2f::images
