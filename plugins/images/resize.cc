#include <algorithm>
#include <cinttypes>
#include <cstring>
#include <vector>

#include "images/images.h"
#include "images/math.h"
#include "images/tasks.h"
#include "images/weights.h"

namespace m2f::images::resize {
namespace {

Status resize_antialiased(const Image& from, const Slot& to, const Kernels& kernels,
                          const Parallel& parallel) {
  // Pillow leaves out a pass that changes no size.
  OwnedWeights rows, columns;
  if (from.height != to.height) rows = antialiased_weights(from.height, to.height);
  if (from.width != to.width) columns = antialiased_weights(from.width, to.width);
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
