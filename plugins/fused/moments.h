#pragma once

#include "common/host_device.h"

// Mean and variance as LayerNorm and GroupNorm take them.

namespace m2f::fused {

// Of some values: their mean is shift + rest, `squares` the sum of squared deviations from it.
struct Moments {
  float shift;
  float rest;
  float squares;
};

// Moments of `count` values from those of their parts, which have `size` values each but for
// the last. In the order of the parts and in double, where no order matters much.
M2F_HD Moments moments_of_parts(const Moments* parts, int64_t count, int64_t size) {
  double sum = 0.0;
  for (int64_t left = count, i = 0; left > 0; left -= size, ++i) {
    const double weight = static_cast<double>(left < size ? left : size);
    sum += weight * (static_cast<double>(parts[i].shift) + static_cast<double>(parts[i].rest));
  }
  const double mean = sum / static_cast<double>(count);
  double squares = 0.0;
  for (int64_t left = count, i = 0; left > 0; left -= size, ++i) {
    const double weight = static_cast<double>(left < size ? left : size);
    const double difference = static_cast<double>(parts[i].shift) - mean + parts[i].rest;
    squares += static_cast<double>(parts[i].squares) + weight * difference * difference;
  }
  const float shift = static_cast<float>(mean);
  return {shift, static_cast<float>(mean - shift), static_cast<float>(squares)};
}

// What deviations are multiplied by. Rounding may leave squares of nothing below zero.
M2F_HD float inverse_deviation(const Moments& moments, int64_t count, float epsilon) {
  const float squares = moments.squares < 0.0f ? 0.0f : moments.squares;
  return 1.0f / __builtin_sqrtf(squares / static_cast<float>(count) + epsilon);
}

}  // namespace m2f::fused
