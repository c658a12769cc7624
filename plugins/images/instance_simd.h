#pragma once

#include "images/instance.h"
#include "images/tile_simd.h"

// Work:    a task is a strip of tiles of one plane. A tile behind which no mask logit is
//          positive is empty; the others are resized, and probabilities are made only where a
//          vector has a pixel inside.
// Traffic: the mask logits once, then caches; the bits once.
// Math:    math.h; sums in float along a tile's columns of lanes, in double from there, in an
//          order that shapes fix. Not here: threads, memory (instance.cc).

namespace m2f::images::instance {
namespace {

// From bit i for column i to the first column in the highest bit of the first byte.
M2F_HD uint32_t first_highest(uint32_t bits) {
  bits = (bits >> 1 & 0x55555555u) | (bits & 0x55555555u) << 1;
  bits = (bits >> 2 & 0x33333333u) | (bits & 0x33333333u) << 2;
  return (bits >> 4 & 0x0F0F0F0Fu) | (bits & 0x0F0F0F0Fu) << 4;
}

struct Sum {
  double total;
  int64_t inside;
};

M2F_HD Sum fill(const AxisTile& rows, const AxisTile& columns, const TileRows& from,
                uint8_t* to, int64_t row_bytes) {
  static_assert(kTileColumns == 32, "a row of a tile is one word of bits");
  const int64_t width = columns.second.count;
  const uint32_t present = width == 32 ? ~0u : (1u << width) - 1;
  Floats total = {};
  int64_t inside = 0;
  for (int64_t y = 0; y < rows.second.count; ++y) {
    uint32_t row = 0;
    for (int64_t x = 0; x < kTileColumns; x += kLanes) {
      const Floats logit = value(from, y, x);
      const Ints is_positive = (logit > 0.0f) & is_inside(columns, x);
      const uint32_t bits = bits_where(is_positive);
      if (bits == 0) continue;
      row |= bits << x;
      total += is_positive ? sigmoid(logit) : Floats{};
    }
    inside += __builtin_popcount(row & present);
    const uint32_t word = first_highest(row & present);
    for (int64_t i = 0; i < (width + 7) / 8; ++i) {
      to[y * row_bytes + i] = static_cast<uint8_t>(word >> 8 * i);
    }
  }
  double sum = 0.0;
  for (int i = 0; i < kLanes; ++i) sum += static_cast<double>(total[i]);
  return {sum, inside};
}

void binarise(const Work& work, int64_t task, float* memory) {
  const Plan& plan = work.plan;
  const int64_t i = task / plan.row_tiles;
  const AxisTile& rows = plan.rows[task % plan.row_tiles];
  const float* plane = work.planes.at(i, plan.size);
  float* strip = memory + kTileScratch;
  float* low = strip + 2 * (plan.size.mask[1] + kPad);
  float* high = low + plan.column_tiles + kPad;
  bound_strip(plan, plane, rows, strip, low, high, 1);
  Sum sum = {0.0, 0};
  for (int64_t t = 0; t < plan.column_tiles; ++t) {
    const AxisTile& columns = plan.columns[t];
    uint8_t* to = work.bits + (i * plan.size.output[0] + rows.begin) * work.row_bytes() +
                  columns.begin / 8;
    if (high[t] < 0.0f) {
      for (int64_t y = 0; y < rows.second.count; ++y) {
        for (int64_t x = 0; x < (columns.second.count + 7) / 8; ++x) {
          to[y * work.row_bytes() + x] = 0;
        }
      }
      continue;
    }
    const TileRows from = tile_rows(plan, plane, rows, columns, false, memory);
    const Sum part = fill(rows, columns, from, to, work.row_bytes());
    sum.total += part.total;
    sum.inside += part.inside;
  }
  work.total[task] = sum.total;
  work.inside[task] = sum.inside;
}

}  // namespace
}  // namespace m2f::images::instance
