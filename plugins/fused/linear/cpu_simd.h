#pragma once

#include "common/simd.h"
#include "fused/linear/kernel.h"

// A fully connected layer in vectors, for one instruction set per inclusion.
//
// Work:    a task walks over K in passes, in a pass over tiles of a few rows, and for these
// rows
//          over its panels of columns. A tile's sums stay in registers for a whole pass;
//          between passes they wait in the output. What follows the sums (bias, activation,
//          residual) happens in the last pass, before a tile leaves the first cache.
// Traffic: per tile, its rows of x from the first cache, where they stay while panels change,
// and
//          a panel's share of the pass from the second, in the order of its addresses.
// Math:    math.h. Sums are of chains of at most kPass products; those of passes are added to
//          each other. Not here: threads, memory, checks (op.cc).

namespace m2f::linear {
namespace {

// Accumulators fill the registers, but for a row of the panel and one element of x.
#if defined(__AVX512F__) || defined(__ARM_NEON)
constexpr int kTileRows = 8;  // of 32 registers
constexpr int kTileVectors = 3;
#else
constexpr int kTileRows = 6;  // of 16
constexpr int kTileVectors = 2;
#endif
constexpr int64_t kPanel = kTileVectors * kLanes;

// Of K in one pass: a block of columns as long as this fits the second cache.
constexpr int64_t kPass = 384;

M2F_HD int64_t lesser(int64_t a, int64_t b) { return a < b ? a : b; }

// The first `count` lanes; zeros beyond.
M2F_HD Floats load_first(const float* from, int64_t count) {
  if (count >= kLanes) return load(from);
  Floats x = splat<Floats>(0.0f);
  __builtin_memcpy(&x, from, static_cast<size_t>(count) * sizeof(float));
  return x;
}

M2F_HD void store_first(Floats x, float* to, int64_t count) {
  if (count >= kLanes) return store_vector(x, to);
  __builtin_memcpy(to, &x, static_cast<size_t>(count) * sizeof(float));
}

// One panel of the weight [K, N].
void pack(const Packing& packing, const float* weight, float* packed, int64_t panel) {
  const int64_t first = panel * kPanel;
  const int64_t count = lesser(packing.columns - first, kPanel);
  float* to = packed + first * packing.inner;
  for (int64_t k = 0; k < packing.inner; ++k) {
    const float* from = weight + k * packing.columns + first;
    for (int64_t i = 0; i < count; i += kLanes, to += kLanes) {
      store_vector(load_first(from + i, count - i), to);
    }
  }
}

// A part of K, and where the task's columns lie.
struct Pass {
  int64_t begin;  // in K
  int64_t end;
  int64_t row_end;
  int64_t column_begin;
  int64_t column_end;
};

// sums[r, v] = x[r, :] panel[:, v], over `count` of K. `pitch` is that of x.
template <int kRows, int kVectors>
M2F_HD void multiply_tile(const float* x, int64_t pitch, const float* panel, int64_t count,
                          float* sums) {
  Floats sum[kRows][kVectors];
  for (int r = 0; r < kRows; ++r) {
    for (int v = 0; v < kVectors; ++v) sum[r][v] = splat<Floats>(0.0f);
  }
  for (int64_t k = 0; k < count; ++k) {
    Floats weight[kVectors];
    for (int v = 0; v < kVectors; ++v) weight[v] = load(panel + (k * kVectors + v) * kLanes);
    for (int r = 0; r < kRows; ++r) {
      const Floats element = splat<Floats>(x[r * pitch + k]);
      for (int v = 0; v < kVectors; ++v) {
        sum[r][v] = Lane<Floats>::multiply_add(element, weight[v], sum[r][v]);
      }
    }
  }
  for (int r = 0; r < kRows; ++r) {
    for (int v = 0; v < kVectors; ++v) {
      store_vector(sum[r][v], sums + (r * kVectors + v) * kLanes);
    }
  }
}

// Adds the sums of a tile [rows, width] to those of earlier passes, in the output; after the
// last, does what follows.
__attribute__((noinline)) void finish_tile(const Work& work, const Pass& pass,
                                           const float* sums, int64_t width, int64_t row,
                                           int64_t rows, int64_t column) {
  const bool is_first = pass.begin == 0;
  const bool is_last = pass.end == work.shape.inner;
  const int64_t columns = lesser(work.shape.columns - column, width);
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t i = 0; i < columns; i += kLanes) {
      const int64_t place = (row + r) * work.shape.columns + column + i;
      const int64_t count = columns - i;
      Floats x = load(sums + r * width + i);
      if (!is_first) x += load_first(work.output + place, count);
      if (is_last) {
        x = activate(work.activation, x + load_first(work.bias + column + i, count));
        if (work.residual != nullptr) x += load_first(work.residual + place, count);
      }
      store_first(x, work.output + place, count);
    }
  }
}

// A tile of these rows, and as many vectors as `columns` need.
template <int kRows, int kVectors>
void make_tile(const Work& work, const Pass& pass, int64_t row, int64_t column,
               int64_t columns) {
  if constexpr (kVectors > 1) {
    if (columns <= (kVectors - 1) * kLanes) {
      return make_tile<kRows, kVectors - 1>(work, pass, row, column, columns);
    }
  }
  constexpr int64_t kWidth = kVectors * kLanes;
  alignas(64) float sums[kRows * kWidth];
  const int64_t inner = work.shape.inner;
  const float* panel = work.packed + column * inner + pass.begin * kWidth;
  multiply_tile<kRows, kVectors>(work.x + row * inner + pass.begin, inner, panel,
                                 pass.end - pass.begin, sums);
  finish_tile(work, pass, sums, kWidth, row, kRows, column);
}

// All rows from `row` on: tiles of kRows, and smaller ones for the rest.
template <int kRows>
void walk(const Work& work, const Pass& pass, int64_t row) {
  for (; row + kRows <= pass.row_end; row += kRows) {
    for (int64_t n = pass.column_begin; n < pass.column_end; n += kPanel) {
      make_tile<kRows, kTileVectors>(work, pass, row, n, pass.column_end - n);
    }
  }
  if constexpr (kRows > 1) walk<kRows / 2>(work, pass, row);
}

void multiply(const Work& work, int64_t task) {
  const Shape& s = work.shape;
  const int64_t row = task / work.column_blocks() * work.block_rows;
  Pass pass;
  pass.row_end = lesser(row + work.block_rows, s.rows);
  pass.column_begin = task % work.column_blocks() * work.block_columns;
  pass.column_end = lesser(pass.column_begin + work.block_columns, s.columns);
  const int64_t passes = s.inner <= kPass ? 1 : (s.inner + kPass - 1) / kPass;
  for (int64_t i = 0; i < passes; ++i) {
    pass.begin = s.inner * i / passes;
    pass.end = s.inner * (i + 1) / passes;
    walk<kTileRows>(work, pass, row);
  }
}

// For tests.
void erf_of(const float* x, int64_t count, float* y) {
  for (int64_t i = 0; i < count; i += kLanes) {
    store_first(erf(load_first(x + i, count - i)), y + i, count - i);
  }
}

}  // namespace
}  // namespace m2f::linear
