#pragma once

#include "common/simd.h"
#include "images/geometry.h"

// One plane on one tile of the output, in vectors: the two resizes without an array of any full
// size. For one instruction set per inclusion (common/kernels_isa.cc).

namespace m2f::images {
namespace {

// The rows of a tile, already stretched along columns: output row y is a mean of two of them.
struct TileRows {
  const float* at;
  int64_t stride;
  const int32_t* low;
  const int32_t* high;
  const float* low_weight;
  const float* high_weight;
};

M2F_HD Floats value(const TileRows& rows, int64_t y, int64_t x) {
  return interpolate(load(rows.at + rows.low[y] * rows.stride + x),
                     load(rows.at + rows.high[y] * rows.stride + x),
                     splat<Floats>(rows.low_weight[y]), splat<Floats>(rows.high_weight[y]));
}

template <int64_t kCapacity>
M2F_HD TileRows rows_of(const float* at, int64_t stride, const Taps<kCapacity>& taps) {
  return {at, stride, taps.low, taps.high, taps.low_weight, taps.high_weight};
}

// to[i] from one row, for whole vectors up to taps.count.
template <int64_t kCapacity>
M2F_HD void stretch(const float* row, const Taps<kCapacity>& taps, float* to) {
  for (int64_t i = 0; i < taps.count; i += kLanes) {
    const Floats low = gather(row, load(taps.low + i));
    const Floats high = gather(row, load(taps.high + i));
    store_vector(interpolate(low, high, load(taps.low_weight + i), load(taps.high_weight + i)),
                 to + i);
  }
}

// The mask's rows that the tile uses, stretched to its middle columns.
M2F_HD TileRows stretched(const Plan& plan, const float* plane, const AxisTile& rows,
                          const AxisTile& columns, float* memory) {
  constexpr int64_t kStride = 2 * kTileColumns;
  for (int64_t r = 0; r < rows.sources; ++r) {
    stretch(plane + rows.source[r] * plan.size.mask[1], columns.first, memory + r * kStride);
  }
  return rows_of(memory, kStride, rows.first);
}

// Middle rows, `stride` apart, as probabilities if asked.
M2F_HD void make_middle(const Plan& plan, const float* plane, const AxisTile& rows,
                        const AxisTile& columns, bool as_probabilities, float* memory,
                        float* to, int64_t stride) {
  const TileRows from = stretched(plan, plane, rows, columns, memory);
  for (int64_t y = 0; y < rows.first.count; ++y) {
    for (int64_t x = 0; x < columns.first.count; x += kLanes) {
      const Floats logit = value(from, y, x);
      store_vector(as_probabilities ? sigmoid(logit) : logit, to + y * stride + x);
    }
  }
}

// Middle rows, stretched to the tile's columns.
M2F_HD TileRows stretched_again(const float* middle, int64_t stride, const AxisTile& rows,
                                const AxisTile& columns, float* to) {
  for (int64_t y = 0; y < rows.first.count; ++y) {
    stretch(middle + y * stride, columns.second, to + y * kTileColumns);
  }
  return rows_of(to, kTileColumns, rows.second);
}

// All of it. `memory`: kTileScratch floats.
M2F_HD TileRows tile_rows(const Plan& plan, const float* plane, const AxisTile& rows,
                          const AxisTile& columns, bool as_probabilities, float* memory) {
  if (plan.is_single) return stretched(plan, plane, rows, columns, memory);
  constexpr int64_t kStride = 2 * kTileColumns;
  float* middle = memory + 4 * kTileRows * kStride;
  make_middle(plan, plane, rows, columns, as_probabilities, memory, middle, kStride);
  return stretched_again(middle, kStride, rows, columns, middle + 2 * kTileRows * kStride);
}

// Whether a column of the tile is one of the output.
M2F_HD Ints is_inside(const AxisTile& columns, int64_t x) {
  Ints lane;
  for (int i = 0; i < kLanes; ++i) lane[i] = i;
  return lane + static_cast<int32_t>(x) < static_cast<int32_t>(columns.second.count);
}

M2F_HD int32_t total_of(Ints x) {
  int32_t sum = 0;
  for (int i = 0; i < kLanes; ++i) sum += x[i];
  return sum;
}

// Bounds of the mask logits behind each tile of a strip; tile t to low[t * step], high[t *
// step]. `memory`: 2 * (w + kPad) floats.
M2F_HD void bound_strip(const Plan& plan, const float* plane, const AxisTile& rows,
                        float* memory, float* low, float* high, int64_t step) {
  const int64_t width = plan.size.mask[1];
  float* least = memory;
  float* most = memory + width + kPad;
  const auto reduce_column = [&](int64_t x, auto zero) {
    using Real = decltype(zero);
    Real a, b;
    const float* at = plane + rows.from * width + x;
    __builtin_memcpy(&a, at, sizeof a);
    b = a;
    for (int64_t y = rows.from + 1; y < rows.to; ++y) {
      at += width;
      Real c;
      __builtin_memcpy(&c, at, sizeof c);
      a = a < c ? a : c;
      b = b > c ? b : c;
    }
    __builtin_memcpy(least + x, &a, sizeof a);
    __builtin_memcpy(most + x, &b, sizeof b);
  };
  int64_t x = 0;
  for (; x + kLanes <= width; x += kLanes) reduce_column(x, Floats{});
  for (; x < width; ++x) reduce_column(x, 0.0f);

  const Floats far = splat<Floats>(__builtin_inff());
  for (int64_t t = 0; t < plan.column_tiles; ++t) {
    const AxisTile& columns = plan.columns[t];
    Floats a = far;
    Floats b = -far;
    for (int64_t i = columns.from; i < columns.to; i += kLanes) {
      const int64_t left = columns.to - i;
      const uint32_t bits = left >= kLanes ? ~0u : (1u << left) - 1;
      const Floats c = where_bit(bits, load(least + i), far);
      const Floats d = where_bit(bits, load(most + i), -far);
      a = a < c ? a : c;
      b = b > d ? b : d;
    }
    const Bounds found = widened({-largest(-a), largest(b)});
    low[t * step] = found.low;
    high[t * step] = found.high;
  }
}

}  // namespace
}  // namespace m2f::images
