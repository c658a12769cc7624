#include "images/weights.h"

#include <algorithm>
#include <cmath>

#include "images/math.h"

namespace m2f::images::resize {

int64_t weights_stride(int64_t source, int64_t target) {
  const double scale = static_cast<double>(source) / static_cast<double>(target);
  return static_cast<int64_t>(std::ceil(std::max(scale, 1.0))) * 2 + 1;
}

OwnedWeights antialiased_weights(int64_t source, int64_t target) {
  OwnedWeights found;
  const double scale = static_cast<double>(source) / static_cast<double>(target);
  const double support = std::max(scale, 1.0);
  const double inverse = 1.0 / support;
  found.stride = weights_stride(source, target);
  found.weight.assign(static_cast<size_t>(found.stride * target), 0);
  std::vector<double> exact(static_cast<size_t>(found.stride));
  for (int64_t i = 0; i < target; ++i) {
    const double centre = (static_cast<double>(i) + 0.5) * scale;
    const int64_t begin = std::max<int64_t>(static_cast<int64_t>(centre - support + 0.5), 0);
    const int64_t end = std::min<int64_t>(static_cast<int64_t>(centre + support + 0.5), source);
    double sum = 0.0;
    for (int64_t x = begin; x < end; ++x) {
      const double weight = triangle((static_cast<double>(x) - centre + 0.5) * inverse);
      exact[static_cast<size_t>(x - begin)] = weight;
      sum += weight;
    }
    for (int64_t x = begin; x < end; ++x) {
      double weight = exact[static_cast<size_t>(x - begin)];
      if (sum != 0.0) weight /= sum;
      found.weight[static_cast<size_t>(i * found.stride + x - begin)] = fixed_weight(weight);
    }
    found.start.push_back(static_cast<int32_t>(begin));
    found.count.push_back(static_cast<int32_t>(end - begin));
  }
  return found;
}

void write_table(int64_t source, int64_t target, int32_t* table) {
  const OwnedWeights weights = antialiased_weights(source, target);
  for (int64_t i = 0; i < target; ++i) {
    const auto element = static_cast<size_t>(i);
    *table++ = weights.start[element];
    *table++ = weights.count[element];
    table = std::copy_n(weights.weight.data() + i * weights.stride, weights.stride, table);
  }
}

}  // namespace m2f::images::resize
