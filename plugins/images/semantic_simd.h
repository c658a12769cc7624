#pragma once

#include "images/semantic.h"
#include "images/tile_simd.h"

// Work:    a task is a strip of tiles. From the least and largest mask logit behind a tile
//          follow bounds of every class's sum; where one class is above all others, nothing
//          else is done. Otherwise sums are formed, a product [classes, Q] x [Q, pixels]
//          blocked for registers, the classes with the largest bounds first: as soon as every
//          pixel has a sum above the bounds of all that are left, those are left out.
// Traffic: the mask logits once for the bounds, from then on caches; the labels once.
// Math:    math.h; sums in float, in the order of the queries, whatever is left out.
//          Not here: threads, memory (semantic.cc).

namespace m2f::images::semantic {
namespace {

struct Memory {
  float* tile;       // kTileScratch
  float* low;        // [tiles, padded(Q)]
  float* high;       // [tiles, padded(Q)]
  float* strip;      // 2 * (w + kPad)
  float* most;       // [padded(K)]
  int32_t* classes;  // [padded(K)], those that are left
  int32_t* queries;  // [padded(Q)], those that are looked at
  float* blocks;     // [blocks, Q, kClasses], weights of classes
  float* inputs;     // [Q, pixels]
  float* sums;       // [kClasses, pixels]
  float* rows;       // [Q, rows]
  float* best;       // [tile]
  int32_t* label;    // [tile]
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
  m.most = take(k);
  m.classes = reinterpret_cast<int32_t*>(take(k));
  m.queries = reinterpret_cast<int32_t*>(take(q));
  m.blocks = take(work.blocks() * kClasses * work.planes.count);
  m.inputs = take(work.planes.count * work.pixels());
  m.sums = take(kClasses * work.pixels());
  m.best = take(kTileRows * kTileColumns);
  m.label = reinterpret_cast<int32_t*>(take(kTileRows * kTileColumns));
  m.rows = from;
  return m;
}

// What is to be done on one tile.
struct Choice {
  int64_t classes;  // that may be the largest somewhere
  int64_t ready;    // blocks of them that are put together
  int64_t queries;  // that add something
};

// Lists the classes that may be the largest somewhere on a tile, and the queries whose sum
// there is more than one rounding of the largest.
M2F_HD Choice choose(const Work& work, const float* low, const float* high, const Memory& m) {
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
  Choice choice = {0, 0, 0};
  for (int64_t c = 0; c < work.classes; ++c) {
    m.classes[choice.classes] = static_cast<int32_t>(c);
    choice.classes += !(m.most[c] < best);
  }
  const float negligible = best * kRounding / static_cast<float>(work.planes.count);
  for (int64_t q = 0; q < work.planes.count; ++q) {
    m.queries[choice.queries] = static_cast<int32_t>(q);
    choice.queries += !(work.peaks[q] * high[q] <= negligible);
  }
  return choice;
}

// Puts the weights of the next classes together: of those left, the ones with the largest
// bounds. Returns the weights [queries, kClasses].
M2F_HD const float* block_of(const Work& work, int64_t index, Choice* choice, const Memory& m) {
  float* block = m.blocks + index * kClasses * work.planes.count;
  if (index < choice->ready) return block;
  ++choice->ready;
  for (int64_t i = 0; i < kClasses; ++i) {
    const int64_t c = index * kClasses + i;
    for (int64_t other = c + 1; other < choice->classes; ++other) {
      const int32_t a = m.classes[c], b = m.classes[other];
      if (m.most[a] >= m.most[b]) continue;
      m.classes[c] = b;
      m.classes[other] = a;
    }
    for (int64_t q = 0; q < choice->queries; ++q) {
      const float* weights = work.weights + m.queries[q] * padded(work.classes);
      block[q * kClasses + i] = c < choice->classes ? weights[m.classes[c]] : 0.0f;
    }
  }
  return block;
}

// sums[i][p] = weights . inputs over the queries, for one panel of pixels and a block of
// classes; rows of inputs and sums are `stride` apart.
M2F_HD void multiply(int64_t queries, const float* block, const float* inputs, float* sums,
                     int64_t stride) {
#if defined(__AVX512F__)
  constexpr int kVectors = 4;  // classes * vectors sums stay in registers
#else
  constexpr int kVectors = 2;
#endif
  for (int64_t p = 0; p < kPanel; p += kVectors * kLanes) {
    Floats sum[kClasses][kVectors] = {};
    for (int64_t q = 0; q < queries; ++q) {
      Floats input[kVectors];
      for (int v = 0; v < kVectors; ++v) input[v] = load(inputs + q * stride + p + v * kLanes);
      for (int i = 0; i < kClasses; ++i) {
        const Floats weight = splat<Floats>(block[q * kClasses + i]);
        for (int v = 0; v < kVectors; ++v) sum[i][v] += weight * input[v];
      }
    }
    for (int i = 0; i < kClasses; ++i) {
      for (int v = 0; v < kVectors; ++v) {
        store_vector(sum[i][v], sums + i * stride + p + v * kLanes);
      }
    }
  }
}

// Compares the sums of one class with the best so far; of equals the first class wins.
// Returns the best from now on.
M2F_HD Floats contend(Floats sum, int32_t label, float* best, int32_t* winner) {
  const Floats before = load(best);
  const Ints holder = load(winner);
  const Ints wins = (sum > before) | ((sum == before) & (holder > label));
  const Floats after = wins ? sum : before;
  store_vector(after, best);
  store_vector(wins ? Ints{} + label : holder, winner);
  return after;
}

// Whether no class from block `index` on can win where the best sums are at least `floor`.
M2F_HD bool is_decided(int64_t index, const Choice& choice, float floor, const Memory& m) {
  return index * kClasses >= choice.classes || m.most[m.classes[index * kClasses]] < floor;
}

M2F_HD float smallest(Floats x) { return -largest(-x); }

// Resizes, then sums: a panel is two rows of the tile.
M2F_HD void classify_after(const Work& work, const AxisTile& rows, const AxisTile& columns,
                           Choice choice, const Memory& m) {
  static_assert(kPanel % kTileColumns == 0, "a panel is whole rows");
  constexpr int64_t kRows = kPanel / kTileColumns;
  TileRows first = {};
  for (int64_t i = 0; i < choice.queries; ++i) {
    const float* plane = work.planes.at(m.queries[i], work.plan.size);
    first = tile_rows(work.plan, plane, rows, columns, false, m.tile);
    const int64_t used = work.plan.is_single ? rows.sources : rows.first.count;
    float* to = m.rows + i * work.rows();
    for (int64_t r = 0; r < used; ++r) {
      __builtin_memcpy(to + r * kTileColumns, first.at + r * first.stride,
                       kTileColumns * sizeof(float));
    }
  }
  first.stride = kTileColumns;
  for (int64_t y = 0; y < rows.second.count; y += kRows) {
    for (int64_t i = 0; i < choice.queries; ++i) {
      first.at = m.rows + i * work.rows();
      for (int64_t r = 0; r < kRows; ++r) {
        const int64_t row = y + r < rows.second.count ? y + r : y;
        for (int64_t x = 0; x < kTileColumns; x += kLanes) {
          store_vector(sigmoid(value(first, row, x)),
                       m.inputs + i * kPanel + r * kTileColumns + x);
        }
      }
    }
    float* best = m.best + y * kTileColumns;
    int32_t* label = m.label + y * kTileColumns;
    float floor = 0.0f;
    for (int64_t b = 0; b * kClasses < choice.classes; ++b) {
      const float* block = block_of(work, b, &choice, m);
      if (is_decided(b, choice, floor, m)) break;
      multiply(choice.queries, block, m.inputs, m.sums, kPanel);
      Floats least = splat<Floats>(__builtin_inff());
      for (int64_t p = 0; p < kPanel; p += kLanes) {
        Floats held = {};
        for (int64_t c = b * kClasses; c < (b + 1) * kClasses && c < choice.classes; ++c) {
          held = contend(load(m.sums + (c - b * kClasses) * kPanel + p), m.classes[c], best + p,
                         label + p);
        }
        least = held < least ? held : least;
      }
      floor = smallest(least);
    }
  }
}

// Sums, then resizes.
M2F_HD void classify_before(const Work& work, const AxisTile& rows, const AxisTile& columns,
                            Choice choice, const Memory& m) {
  const int64_t stride = work.pixels();
  const int64_t width = padded(columns.first.count);
  for (int64_t i = 0; i < choice.queries; ++i) {
    const float* plane = work.planes.at(m.queries[i], work.plan.size);
    make_middle(work.plan, plane, rows, columns, true, m.tile, m.inputs + i * stride, width);
  }
  float floor = 0.0f;
  for (int64_t b = 0; b * kClasses < choice.classes; ++b) {
    const float* block = block_of(work, b, &choice, m);
    if (is_decided(b, choice, floor, m)) break;
    for (int64_t p = 0; p < rows.first.count * width; p += kPanel) {
      multiply(choice.queries, block, m.inputs + p, m.sums + p, stride);
    }
    Floats least = {};
    for (int64_t c = b * kClasses; c < (b + 1) * kClasses && c < choice.classes; ++c) {
      const float* class_sums = m.sums + (c - b * kClasses) * stride;
      const TileRows sums = stretched_again(class_sums, width, rows, columns, m.tile);
      least = splat<Floats>(__builtin_inff());
      for (int64_t y = 0; y < rows.second.count; ++y) {
        for (int64_t x = 0; x < kTileColumns; x += kLanes) {
          const int64_t p = y * kTileColumns + x;
          const Floats held = contend(value(sums, y, x), m.classes[c], m.best + p, m.label + p);
          least = held < least ? held : least;
        }
      }
    }
    floor = smallest(least);
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
    const Choice choice = choose(work, low, high, m);
    for (int64_t p = 0; p < kTileRows * kTileColumns; ++p) {
      m.best[p] = -1.0f;  // below any sum
      m.label[p] = choice.classes == 1 ? m.classes[0] : 0;
    }
    if (choice.classes > 1) {
      const auto decide = work.resizes_sums() ? classify_before : classify_after;
      decide(work, rows, columns, choice, m);
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
