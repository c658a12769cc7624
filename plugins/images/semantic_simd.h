#pragma once

#include "images/semantic.h"
#include "images/tile_simd.h"

// Work:    a task is a strip of tiles. From the least and largest mask logit behind a tile
//          follow bounds of every class's sum; a class whose upper bound is below another's
//          lower one is not looked at, and where one class is left, nothing is. For the rest
//          the sums are a product [classes, Q] x [Q, pixels], blocked for registers.
// Traffic: the mask logits once for the bounds, from then on caches; the labels once.
// Math:    math.h; sums in float, in the order of the queries, whatever else is looked at.
//          Not here: threads, memory (semantic.cc).

namespace m2f::images::semantic {
namespace {

struct Memory {
  float* tile;      // kTileScratch
  float* low;       // [tiles, padded(Q)]
  float* high;      // [tiles, padded(Q)]
  float* strip;     // 2 * (w + kPad)
  float* least;     // [padded(K)]
  float* most;      // [padded(K)]
  int32_t* chosen;  // [padded(K)], classes that are left
  float* blocks;    // [blocks, Q, kClasses], their weights
  float* inputs;    // [Q, pixels]
  float* sums;      // [classes, pixels]
  float* rows;      // [Q, rows]
  float* best;      // [tile]
  int32_t* label;   // [tile]
};

M2F_HD Memory memory_in(const Work& work, float* from) {
  const int64_t q = padded(work.planes.count), k = padded(work.classes);
  const auto take = [&](int64_t floats) {
    float* taken = from;
    from += floats;
    return taken;
  };
  Memory m;
  m.tile = take(kTileScratch);
  m.low = take((work.plan.column_tiles + 1) * q);
  m.high = take((work.plan.column_tiles + 1) * q);
  m.strip = take(2 * (work.plan.size.mask[1] + kPad));
  m.least = take(k);
  m.most = take(k);
  m.chosen = reinterpret_cast<int32_t*>(take(k));
  m.blocks = take(work.blocks() * kClasses * work.planes.count);
  m.inputs = take(work.planes.count * work.pixels());
  m.sums = take(work.blocks() * kClasses * work.pixels());
  m.best = take(kTileRows * kTileColumns);
  m.label = reinterpret_cast<int32_t*>(take(kTileRows * kTileColumns));
  m.rows = from;
  return m;
}

// Lists the classes that may be the largest somewhere on a tile; returns how many.
M2F_HD int64_t choose(const Work& work, const float* low, const float* high, const Memory& m) {
  const int64_t k = padded(work.classes);
  const float slack = slack_of_sum(work.planes.count);
  float best = 0.0f;
  for (int64_t c = 0; c < k; c += kLanes) {
    Floats least = {};
    Floats most = {};
    for (int64_t q = 0; q < work.planes.count; ++q) {
      const Floats weight = load(work.weights + q * k + c);
      least += weight * low[q];
      most += weight * high[q];
    }
    store_vector(most * (1.0f + slack), m.most + c);
    best = at_least(largest(least) * (1.0f - slack), best);
  }
  int64_t count = 0;
  for (int64_t c = 0; c < work.classes; ++c) {
    m.chosen[count] = static_cast<int32_t>(c);
    count += !(m.most[c] < best);
  }
  return count;
}

// Puts the weights of the chosen classes together, kClasses at a time.
M2F_HD void pack(const Work& work, int64_t count, const Memory& m) {
  const int64_t k = padded(work.classes);
  for (int64_t first = 0; first < count; first += kClasses) {
    float* to = m.blocks + first * work.planes.count;
    for (int64_t q = 0; q < work.planes.count; ++q) {
      for (int64_t i = 0; i < kClasses; ++i) {
        const int64_t c = first + i;
        to[q * kClasses + i] = c < count ? work.weights[q * k + m.chosen[c]] : 0.0f;
      }
    }
  }
}

// sums[c][p] = weights . inputs over the queries, for one panel of pixels and all the chosen
// classes; rows of both are `stride` apart.
M2F_HD void multiply(const Work& work, int64_t count, const float* blocks, const float* inputs,
                     float* sums, int64_t stride) {
#if defined(__AVX512F__)
  constexpr int kVectors = 4;  // classes * vectors sums stay in registers
#else
  constexpr int kVectors = 2;
#endif
  for (int64_t first = 0; first < count; first += kClasses) {
    const float* block = blocks + first * work.planes.count;
    for (int64_t p = 0; p < kPanel; p += kVectors * kLanes) {
      Floats sum[kClasses][kVectors] = {};
      for (int64_t q = 0; q < work.planes.count; ++q) {
        Floats input[kVectors];
        for (int v = 0; v < kVectors; ++v)
          input[v] = load(inputs + q * stride + p + v * kLanes);
        for (int i = 0; i < kClasses; ++i) {
          const Floats weight = splat<Floats>(block[q * kClasses + i]);
          for (int v = 0; v < kVectors; ++v) sum[i][v] += weight * input[v];
        }
      }
      for (int i = 0; i < kClasses; ++i) {
        for (int v = 0; v < kVectors; ++v) {
          store_vector(sum[i][v], sums + (first + i) * stride + p + v * kLanes);
        }
      }
    }
  }
}

// Compares the sums of one class with the best so far; of equals the first stays.
M2F_HD void contend(Floats sum, int32_t label, float* best, int32_t* winner) {
  const Floats before = load(best);
  const Ints wins = sum > before;
  store_vector(wins ? sum : before, best);
  store_vector(wins ? Ints{} + label : load(winner), winner);
}

// Resizes, then sums: a panel is two rows of the tile.
M2F_HD void classify_after(const Work& work, const AxisTile& rows, const AxisTile& columns,
                           int64_t count, const Memory& m) {
  static_assert(kPanel % kTileColumns == 0, "a panel is whole rows");
  constexpr int64_t kRows = kPanel / kTileColumns;
  TileRows first = {};
  for (int64_t q = 0; q < work.planes.count; ++q) {
    first =
        tile_rows(work.plan, work.planes.at(q, work.plan.size), rows, columns, false, m.tile);
    const int64_t used = work.plan.is_single ? rows.sources : rows.first.count;
    float* to = m.rows + q * work.rows();
    for (int64_t r = 0; r < used; ++r) {
      __builtin_memcpy(to + r * kTileColumns, first.at + r * first.stride,
                       kTileColumns * sizeof(float));
    }
  }
  first.stride = kTileColumns;
  for (int64_t y = 0; y < rows.second.count; y += kRows) {
    for (int64_t q = 0; q < work.planes.count; ++q) {
      first.at = m.rows + q * work.rows();
      for (int64_t r = 0; r < kRows; ++r) {
        const int64_t row = y + r < rows.second.count ? y + r : y;
        for (int64_t x = 0; x < kTileColumns; x += kLanes) {
          store_vector(sigmoid(value(first, row, x)),
                       m.inputs + q * kPanel + r * kTileColumns + x);
        }
      }
    }
    multiply(work, count, m.blocks, m.inputs, m.sums, kPanel);
    for (int64_t c = 0; c < count; ++c) {
      for (int64_t p = 0; p < kPanel; p += kLanes) {
        contend(load(m.sums + c * kPanel + p), m.chosen[c], m.best + y * kTileColumns + p,
                m.label + y * kTileColumns + p);
      }
    }
  }
}

// Sums, then resizes.
M2F_HD void classify_before(const Work& work, const AxisTile& rows, const AxisTile& columns,
                            int64_t count, const Memory& m) {
  const int64_t stride = work.pixels();
  const int64_t width = padded(columns.first.count);
  for (int64_t q = 0; q < work.planes.count; ++q) {
    make_middle(work.plan, work.planes.at(q, work.plan.size), rows, columns, true, m.tile,
                m.inputs + q * stride, width);
  }
  for (int64_t p = 0; p < rows.first.count * width; p += kPanel) {
    multiply(work, count, m.blocks, m.inputs + p, m.sums + p, stride);
  }
  for (int64_t c = 0; c < count; ++c) {
    const TileRows sums = stretched_again(m.sums + c * stride, width, rows, columns, m.tile);
    for (int64_t y = 0; y < rows.second.count; ++y) {
      for (int64_t x = 0; x < kTileColumns; x += kLanes) {
        const int64_t p = y * kTileColumns + x;
        contend(value(sums, y, x), m.chosen[c], m.best + p, m.label + p);
      }
    }
  }
}

void classify(const Work& work, int64_t strip, float* memory) {
  const Plan& plan = work.plan;
  const AxisTile& rows = plan.rows[strip];
  const Memory m = memory_in(work, memory);
  const int64_t step = padded(work.planes.count);
  // Inputs that no pixel writes take part in sums that nobody reads; they must be numbers.
  for (int64_t i = 0; i < work.planes.count * work.pixels(); ++i) m.inputs[i] = 0.0f;
  for (int64_t i = 0; i < (plan.column_tiles + 1) * step; ++i) m.low[i] = m.high[i] = 0.0f;
  for (int64_t q = 0; q < work.planes.count; ++q) {
    bound_strip(plan, work.planes.at(q, plan.size), rows, m.strip, m.low + q, m.high + q, step);
  }
  for (int64_t t = 0; t < plan.column_tiles; ++t) {
    const AxisTile& columns = plan.columns[t];
    float* low = m.low + t * step;
    float* high = m.high + t * step;
    for (int64_t q = 0; q < work.planes.count; q += kLanes) {
      store_vector(sigmoid(load(low + q)), low + q);
      store_vector(sigmoid(load(high + q)), high + q);
    }
    const int64_t count = choose(work, low, high, m);
    for (int64_t p = 0; p < kTileRows * kTileColumns; ++p) {
      m.best[p] = -1.0f;  // below any sum
      m.label[p] = count == 1 ? m.chosen[0] : 0;
    }
    if (count > 1) {
      pack(work, count, m);
      const auto decide = work.resizes_sums() ? classify_before : classify_after;
      decide(work, rows, columns, count, m);
    }
    for (int64_t y = 0; y < rows.second.count; ++y) {
      int32_t* to = work.labels + (rows.begin + y) * plan.size.output[1] + columns.begin;
      const int32_t* from = m.label + y * kTileColumns;
      for (int64_t x = 0; x < columns.second.count; ++x) to[x] = from[x];
    }
  }
}

}  // namespace
}  // namespace m2f::images::semantic
