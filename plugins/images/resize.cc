#include <algorithm>
#include <cinttypes>
#include <cstring>
#include <vector>

#include "images/images.h"
#include "images/math.h"
#include "images/tasks.h"

namespace m2f::images::resize {
namespace {

// Pillow's weights for one axis, with what owns them.
struct OwnedWeights {
  int64_t stride = 0;
  std::vector<int32_t> start, count, weight;

  Weights view() const {
    return {stride, start.data(), count.data(), weight.empty() ? nullptr : weight.data()};
  }
};

OwnedWeights antialiased_weights(int64_t source, int64_t target) {
  OwnedWeights found;
  if (source == target) return found;  // Pillow leaves out a pass that changes no size
  const double scale = static_cast<double>(source) / static_cast<double>(target);
  const double support = std::max(scale, 1.0);
  const double inverse = 1.0 / support;
  found.stride = static_cast<int64_t>(std::ceil(support)) * 2 + 1;
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

Status resize_antialiased(const Image& from, const Slot& to, const Kernels& kernels,
                          const Parallel& parallel) {
  const OwnedWeights rows = antialiased_weights(from.height, to.height);
  const OwnedWeights columns = antialiased_weights(from.width, to.width);
  Work work = {from, to, rows.view(), columns.view(), 0, kernels.lanes};
  for (int64_t begin = 0; begin < to.height; begin += kStripRows) {
    const auto first = static_cast<size_t>(begin);
    const auto last = static_cast<size_t>(std::min(begin + kStripRows, to.height) - 1);
    const int64_t used = rows.weight.empty()
                             ? kStripRows
                             : rows.start[last] + rows.count[last] - rows.start[first];
    work.most_rows = std::max(work.most_rows, used);
  }
  return run_tasks(
      (to.padded_height + kStripRows - 1) / kStripRows, work.scratch(), parallel,
      [&](int64_t strip, float* memory) { kernels.resize_antialiased(work, strip, memory); });
}

// Rounded as the sum of two products each, columns first: what the runtime's NumPy does.
Status resize_nearest_four(const Image& from, const Slot& to, const Parallel& parallel) {
  std::vector<Tap> columns;
  for (int64_t x = 0; x < to.width; ++x) {
    columns.push_back(linear_tap(x, static_cast<float>(from.width), to.width, from.width - 1));
  }
  const auto run = [&](int64_t y, float*) {
    uint8_t* row = to.pixels + y * to.padded_width * 3;
    const int64_t filled = y < to.height ? 3 * to.width : 0;
    std::memset(row + filled, 0, static_cast<size_t>(3 * to.padded_width - filled));
    if (y >= to.height) return;
    const Tap tap = linear_tap(y, static_cast<float>(from.height), to.height, from.height - 1);
    const uint8_t* low = from.pixels + tap.low * from.width * 3;
    const uint8_t* high = from.pixels + tap.high * from.width * 3;
    for (int64_t x = 0; x < to.width; ++x) {
      const Tap& column = columns[static_cast<size_t>(x)];
      for (int64_t c = 0; c < 3; ++c) {
        const int64_t left = 3 * column.low + c, right = 3 * column.high + c;
        const float above = low[left] * column.low_weight + low[right] * column.high_weight;
        const float below = high[left] * column.low_weight + high[right] * column.high_weight;
        const float mean = above * tap.low_weight + below * tap.high_weight;
        row[3 * x + c] = static_cast<uint8_t>(std::min(mean + 0.5f, 255.0f));
      }
    }
  };
  return run_tasks(to.padded_height, 1, parallel, run);
}

}  // namespace

Status resize(const Image& from, const Slot& to, Filter filter, const Kernels& kernels,
              const Parallel& parallel) {
  constexpr int64_t kMost = 1 << 24;  // pixels of a side: positions are float32
  if (from.height < 1 || from.width < 1 || to.height < 1 || to.width < 1 ||
      to.padded_height < to.height || to.padded_width < to.width ||
      std::max({from.height, from.width, to.padded_height, to.padded_width}) > kMost) {
    return error("an image of %" PRId64 "x%" PRId64 " cannot become %" PRId64 "x%" PRId64
                 " within %" PRId64 "x%" PRId64,
                 from.height, from.width, to.height, to.width, to.padded_height,
                 to.padded_width);
  }
  if (filter == Filter::kAntialiased) return resize_antialiased(from, to, kernels, parallel);
  return resize_nearest_four(from, to, parallel);
}

}  // namespace m2f::images::resize
