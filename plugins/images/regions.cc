#include <algorithm>
#include <atomic>
#include <cinttypes>
#include <cstring>
#include <mutex>
#include <vector>

#include "images/images.h"

namespace m2f::images {
namespace {

constexpr int64_t kBandRows = 64;

int64_t bands(int64_t height) { return (height + kBandRows - 1) / kBandRows; }

// A region as its two corners, the second outside; grows by runs of pixels.
struct Extent {
  int64_t area = 0;
  int64_t left = INT64_MAX, top = INT64_MAX, right = 0, bottom = 0;

  void add(int64_t pixels, int64_t begin, int64_t end, int64_t y) {
    area += pixels;
    left = std::min(left, begin);
    right = std::max(right, end);
    top = std::min(top, y);
    bottom = std::max(bottom, y + 1);
  }

  void add(const Extent& other) {
    area += other.area;
    left = std::min(left, other.left);
    right = std::max(right, other.right);
    top = std::min(top, other.top);
    bottom = std::max(bottom, other.bottom);
  }

  Region region() const {
    if (area == 0) return {};
    return {area, left, top, right - left, bottom - top};
  }
};

// The masks' rows as words; bits past the last pixel are zero.
Extent extent_of(const uint8_t* bits, int64_t height, int64_t row_bytes) {
  Extent extent;
  for (int64_t y = 0; y < height; ++y) {
    const uint8_t* row = bits + y * row_bytes;
    int64_t area = 0;
    int64_t i = 0;
    for (; i + 8 <= row_bytes; i += 8) {
      uint64_t word;
      std::memcpy(&word, row + i, sizeof word);
      area += __builtin_popcountll(word);
    }
    for (; i < row_bytes; ++i) area += __builtin_popcount(row[i]);
    if (area == 0) continue;
    int64_t first = 0, last = row_bytes - 1;
    while (row[first] == 0) ++first;
    while (row[last] == 0) --last;
    const int64_t begin = first * 8 + __builtin_clz(row[first]) - 24;
    const int64_t end = last * 8 + 8 - __builtin_ctz(row[last]);
    extent.add(area, begin, end, y);
  }
  return extent;
}

}  // namespace

Status look_up(const uint16_t* codes, const int32_t* table, int64_t entries, int64_t height,
               int64_t width, int32_t* ids, const Parallel& parallel) {
  // Codes come from this library, but a wrong table must not read past its end.
  std::vector<int32_t> all(1 << 16, 0);
  std::copy(table, table + std::min<int64_t>(entries, 1 << 16), all.begin());
  auto run = [&](int64_t band) {
    const int64_t begin = band * kBandRows * width;
    const int64_t end = std::min((band + 1) * kBandRows, height) * width;
    for (int64_t p = begin; p < end; ++p) ids[p] = all[codes[p]];
  };
  parallel.run(bands(height), run);
  return {};
}

Status regions_of_map(const int32_t* ids, int64_t height, int64_t width, int64_t count,
                      Region* regions, const Parallel& parallel) {
  std::vector<Extent> extents(static_cast<size_t>(count));
  std::mutex merging;
  std::atomic<bool> has_memory{true};
  auto run = [&](int64_t band) {
    std::vector<Extent> own;
    try {
      own.resize(static_cast<size_t>(count));
    } catch (const std::bad_alloc&) {
      has_memory = false;
      return;
    }
    const int64_t end = std::min((band + 1) * kBandRows, height);
    for (int64_t y = band * kBandRows; y < end; ++y) {
      const int32_t* row = ids + y * width;
      for (int64_t x = 0; x < width;) {
        const int32_t id = row[x];
        const int64_t begin = x++;
        while (x < width && row[x] == id) ++x;
        if (id >= 0 && id < count) own[static_cast<size_t>(id)].add(x - begin, begin, x, y);
      }
    }
    const std::lock_guard<std::mutex> lock(merging);
    for (size_t i = 0; i < own.size(); ++i) extents[i].add(own[i]);
  };
  parallel.run(bands(height), run);
  if (!has_memory) return error("no memory for %" PRId64 " regions", count);
  for (int64_t i = 0; i < count; ++i) regions[i] = extents[static_cast<size_t>(i)].region();
  return {};
}

Status regions_of_masks(const uint8_t* bits, int64_t count, int64_t height, int64_t width,
                        Region* regions, const Parallel& parallel) {
  const int64_t row_bytes = (width + 7) / 8;
  auto run = [&](int64_t i) {
    regions[i] = extent_of(bits + i * height * row_bytes, height, row_bytes).region();
  };
  parallel.run(count, run);
  return {};
}

Status enlarge_masks(const uint8_t* bits, int64_t count, int64_t height, int64_t width,
                     const int64_t* rows, int64_t out_height, const int64_t* columns,
                     int64_t out_width, uint8_t* to, const Parallel& parallel) {
  const auto is_within = [](const int64_t* index, int64_t n, int64_t size) {
    return std::all_of(index, index + n, [size](int64_t i) { return i >= 0 && i < size; });
  };
  if (!is_within(rows, out_height, height) || !is_within(columns, out_width, width)) {
    return error("a pixel lies outside the masks of %" PRId64 "x%" PRId64, height, width);
  }
  const int64_t from_bytes = (width + 7) / 8, to_bytes = (out_width + 7) / 8;
  auto run = [&](int64_t i) {
    const uint8_t* mask = bits + i * height * from_bytes;
    uint8_t* out = to + i * out_height * to_bytes;
    for (int64_t y = 0; y < out_height; ++y, out += to_bytes) {
      if (y > 0 && rows[y] == rows[y - 1]) {
        std::memcpy(out, out - to_bytes, static_cast<size_t>(to_bytes));
        continue;
      }
      const uint8_t* row = mask + rows[y] * from_bytes;
      std::memset(out, 0, static_cast<size_t>(to_bytes));
      for (int64_t x = 0; x < out_width; ++x) {
        const int bit = row[columns[x] >> 3] >> (7 - (columns[x] & 7)) & 1;
        out[x >> 3] = static_cast<uint8_t>(out[x >> 3] | bit << (7 - (x & 7)));
      }
    }
  };
  parallel.run(count, run);
  return {};
}

int64_t count_not_finite(const float* values, int64_t count, const Parallel& parallel) {
  constexpr int64_t kBlock = 1 << 16;
  std::atomic<int64_t> found{0};
  auto run = [&](int64_t block) {
    const int64_t end = std::min((block + 1) * kBlock, count);
    int32_t bad = 0;
    for (int64_t i = block * kBlock; i < end; ++i) {
      uint32_t bits;
      std::memcpy(&bits, values + i, sizeof bits);
      bad += (bits & 0x7F800000u) == 0x7F800000u;
    }
    found += bad;
  };
  parallel.run((count + kBlock - 1) / kBlock, run);
  return found;
}

}  // namespace m2f::images
