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
//          a panel's part of the pass from the second, in the order of its addresses.
// Math:    math.h. Sums are of chains of at most kPass products; those of passes are added to
//          each other. Not here: threads, memory, checks (op.cc).

namespace m2f::linear {
namespace {

// As many sums as there are registers, but for a row of the panel and some elements of x: one
// with AVX-512, more with NEON, where compilers load them early.
#if defined(__AVX512F__)
constexpr int kTileRows = 8;  // of 32 registers
constexpr int kTileVectors = 3;
#elif defined(__ARM_NEON)
constexpr int kTileRows = 6;  // of 32
constexpr int kTileVectors = 3;
#else
constexpr int kTileRows = 6;  // of 16
constexpr int kTileVectors = 2;
#endif
constexpr int64_t kPanel = kTileVectors * kLanes;

constexpr int64_t kLine = 16;  // floats of a cache line

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
  int64_t row_begin;
  int64_t row_end;
  int64_t column_begin;
  int64_t column_end;
};

// Some floats of each row of a matrix, and the distance of rows.
template <class Float>
struct Rows {
  Float* first;
  int64_t pitch;
};

// to[r, v] = from[r, v] + x[r, :] panel[:, v], over `count` of K.
template <int kRows, int kVectors>
void multiply_tile(Rows<const float> x, const float* panel, int64_t count,
                   Rows<const float> from, Rows<float> to) {
  Floats sum[kRows][kVectors];
  for (int r = 0; r < kRows; ++r) {
    for (int v = 0; v < kVectors; ++v) sum[r][v] = splat<Floats>(0.0f);
  }
  M2F_UNROLL(4)
  for (int64_t k = 0; k < count; ++k) {
    Floats weight[kVectors];
    for (int v = 0; v < kVectors; ++v) weight[v] = load(panel + (k * kVectors + v) * kLanes);
    for (int r = 0; r < kRows; ++r) {
      const Floats element = splat<Floats>(x.first[r * x.pitch + k]);
      for (int v = 0; v < kVectors; ++v) {
        sum[r][v] = Lane<Floats>::multiply_add(element, weight[v], sum[r][v]);
      }
    }
  }
  M2F_UNROLL(8)
  for (int r = 0; r < kRows; ++r) {
    M2F_UNROLL(4)
    for (int v = 0; v < kVectors; ++v) {
      const Floats before = load(from.first + r * from.pitch + v * kLanes);
      store_vector(before + sum[r][v], to.first + r * to.pitch + v * kLanes);
    }
  }
}

// What follows the sums, in place; no residual where it is null.
template <int kRows, int kVectors>
void finish_tile(Activation activation, Rows<const float> residual, Rows<float> to) {
  for (int64_t r = 0; r < kRows; ++r) {
    float* place = to.first + r * to.pitch;
    Floats x[kVectors];
    for (int v = 0; v < kVectors; ++v) x[v] = load(place + v * kLanes);
    fused::activate(activation, x);
    if (residual.first != nullptr) {
      const float* added = residual.first + r * residual.pitch;
      for (int v = 0; v < kVectors; ++v) x[v] += load(added + v * kLanes);
    }
    for (int v = 0; v < kVectors; ++v) store_vector(x[v], place + v * kLanes);
  }
}

void copy(Rows<const float> from, int64_t rows, int64_t columns, Rows<float> to) {
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t i = 0; i < columns; i += kLanes) {
      const Floats x = load_first(from.first + r * from.pitch + i, columns - i);
      store_first(x, to.first + r * to.pitch + i, columns - i);
    }
  }
}

// Fetches into the second cache what is needed there after this pass: a panel's part of the
// next pass, or of the next task's first. Each tile of the panel takes as large a share as its
// rows are of all.
M2F_HD void fetch_ahead(const Work& work, const Pass& pass, int64_t row, int64_t rows,
                        int64_t column, int64_t width) {
  const int64_t part = (pass.end - pass.begin) * width;
  const bool is_last = pass.end == work.shape.inner;
  const int64_t next = is_last ? column + work.block_columns : column;
  if (next >= work.shape.columns) return;
  const float* from = work.packed + next * work.shape.inner + (is_last ? 0 : pass.end * width);
  const int64_t share = part / (pass.row_end - pass.row_begin) + 1;
  const int64_t first = (row - pass.row_begin) * share;
  for (int64_t i = first; i < first + rows * share; i += kLine) {
    __builtin_prefetch(from + i, 0, 2);
  }
}

// Lines of the output, to have them by the time the sums are done: stores would wait for them
// one after the other.
template <int kRows, int kVectors>
M2F_HD void fetch_output(Rows<float> output) {
  for (int r = 0; r < kRows; ++r) {
    for (int v = 0; v < kVectors; ++v) {
      __builtin_prefetch(output.first + r * output.pitch + v * kLanes, 1);
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
  const Shape& s = work.shape;
  const float* panel = work.packed + column * s.inner + pass.begin * kWidth;
  const Rows<const float> x = {work.x + row * s.inner + pass.begin, s.inner};
  const Rows<float> output = {work.output + row * s.columns + column, s.columns};
  fetch_ahead(work, pass, row, kRows, column, kWidth);
  if (pass.begin == 0) fetch_output<kRows, kVectors>(output);
  Rows<const float> from = {work.bias + column, 0};
  if (pass.begin > 0) from = {output.first, output.pitch};
  Rows<const float> residual = {work.residual, s.columns};
  if (work.residual != nullptr) residual.first += row * s.columns + column;
  const bool is_last = pass.end == s.inner;
  const bool is_plain = work.activation == Activation::kNone && work.residual == nullptr;
  const auto run = [&](Rows<const float> before, Rows<const float> added, Rows<float> to) {
    multiply_tile<kRows, kVectors>(x, panel, pass.end - pass.begin, before, to);
    if (is_last && !is_plain) finish_tile<kRows, kVectors>(work.activation, added, to);
  };
  if (columns >= kWidth) return run(from, residual, output);
  // Of the last vector only a part is there.
  alignas(64) float sums[kRows * kWidth] = {};
  alignas(64) float added[kRows * kWidth] = {};
  copy(from, kRows, columns, {sums, kWidth});
  if (work.residual != nullptr) {
    copy(residual, kRows, columns, {added, kWidth});
    residual = {added, kWidth};
  }
  run({sums, kWidth}, residual, {sums, kWidth});
  copy({sums, kWidth}, kRows, columns, output);
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
  pass.row_begin = row;
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
    Floats part[1] = {load_first(x + i, count - i)};
    erf(part);
    store_first(part[0], y + i, count - i);
  }
}

}  // namespace
}  // namespace m2f::linear
