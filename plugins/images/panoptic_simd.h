#pragma once

#include "images/panoptic.h"
#include "images/tile_simd.h"

// Work:    a task is a strip of tiles. From the least and largest mask logit behind a tile
//          follow bounds of every query's claim: most queries can win no pixel of most tiles,
//          and their own mask covers all or nothing of it. Only the others are looked at.
// Traffic: the mask logits once for the bounds, from then on caches; the codes once.
// Math:    math.h. Not here: threads, memory (panoptic.cc).

namespace m2f::images::panoptic {
namespace {

// What is known about the queries on one tile.
struct Claims {
  float* upper;       // [n] above what a query claims anywhere
  float* membership;  // [n] 1: the whole tile is in its own mask, 0: nothing, 0.5: unknown
  float floor;        // below what somebody claims everywhere
};

M2F_HD Claims claims_on(const Work& work, float* low, float* high) {
  const float slack = slack_of_sum(1);
  const Floats threshold = splat<Floats>(work.rules.threshold);
  Floats floor = splat<Floats>(0.0f);
  for (int64_t i = 0; i < work.planes.count; i += kLanes) {
    const Floats score = load(work.scores + i);
    const Floats least = sigmoid(load(low + i)) * (1.0f - slack);
    const Floats most = sigmoid(load(high + i)) * (1.0f + slack);
    const Floats from = least * score;
    const Floats to = most * score;
    floor = from > floor ? from : floor;
    const bool is_weighted = work.rules.is_weighted != 0;
    const auto covers_all = (is_weighted ? from : least) >= threshold;
    const auto covers_none = (is_weighted ? to : most) < threshold;
    const Floats known = covers_none ? splat<Floats>(0.0f) : splat<Floats>(0.5f);
    store_vector(to, high + i);
    store_vector(covers_all ? splat<Floats>(1.0f) : known, low + i);
  }
  return {high, low, largest(floor)};
}

// The pixels of one tile while queries are compared.
struct Contest {
  float* best;    // the largest claim so far
  int32_t* code;  // whose it is, as in Work::codes
};

// Lets one query claim its pixels; returns how many are in its own mask.
template <bool kIsProbability, bool kIsWeighted>
M2F_HD int32_t claim_as(const Work& work, const AxisTile& rows, const AxisTile& columns,
                        const TileRows& from, int64_t query, const Contest& contest) {
  const Floats score = splat<Floats>(work.scores[query]);
  const Floats threshold = splat<Floats>(work.rules.threshold);
  const Ints outside = Ints{} + static_cast<int32_t>(2 * query);
  Ints own = {};
  for (int64_t x = 0; x < kTileColumns; x += kLanes) {
    const Ints inside = is_inside(columns, x);
    for (int64_t y = 0; y < rows.second.count; ++y) {
      const Floats found = value(from, y, x);
      const Floats probability = kIsProbability ? found : sigmoid(found);
      const Floats claim = probability * score;
      const Ints member = (kIsWeighted ? claim : probability) >= threshold;
      own -= member & inside;
      float* best = contest.best + y * kTileColumns + x;
      int32_t* code = contest.code + y * kTileColumns + x;
      const Floats before = load(best);
      const Ints wins = claim > before;
      store_vector(wins ? claim : before, best);
      store_vector(wins ? outside - member : load(code), code);
    }
  }
  return total_of(own);
}

M2F_HD int32_t claim(const Work& work, const AxisTile& rows, const AxisTile& columns,
                     int64_t query, const Contest& contest, float* memory) {
  const bool between = work.rules.as_probabilities != 0;
  const TileRows from = tile_rows(work.plan, work.planes.at(query, work.plan.size), rows,
                                  columns, between, memory);
  if (work.rules.is_weighted == 0) {
    if (between && !work.plan.is_single) {
      return claim_as<true, false>(work, rows, columns, from, query, contest);
    }
    return claim_as<false, false>(work, rows, columns, from, query, contest);
  }
  if (between && !work.plan.is_single) {
    return claim_as<true, true>(work, rows, columns, from, query, contest);
  }
  return claim_as<false, true>(work, rows, columns, from, query, contest);
}

M2F_HD void add(int64_t* to, int64_t i, int64_t pixels) {
  if (pixels != 0) __atomic_fetch_add(to + i, pixels, __ATOMIC_RELAXED);
}

// Counts what `query` has won of a tile.
M2F_HD void count_won(const Work& work, const AxisTile& rows, const AxisTile& columns,
                      int64_t query, const int32_t* code) {
  Ints won = {};
  Ints both = {};
  const Ints outside = Ints{} + static_cast<int32_t>(2 * query);
  for (int64_t x = 0; x < kTileColumns; x += kLanes) {
    const Ints inside = is_inside(columns, x);
    for (int64_t y = 0; y < rows.second.count; ++y) {
      const Ints whose = load(code + y * kTileColumns + x);
      const Ints member = whose == outside + 1;
      won -= (member | (whose == outside)) & inside;
      both -= member & inside;
    }
  }
  add(work.won, query, total_of(won));
  add(work.both, query, total_of(both));
}

// Everything about one tile, given the bounds of the logits behind it.
M2F_HD void settle(const Work& work, const AxisTile& rows, const AxisTile& columns, float* low,
                   float* high, const Contest& contest, float* memory) {
  const int64_t pixels = rows.second.count * columns.second.count;
  const Claims claims = claims_on(work, low, high);
  int64_t contenders = 0;
  int64_t last = 0;
  for (int64_t i = 0; i < work.planes.count; ++i) {
    if (claims.upper[i] < claims.floor) continue;
    ++contenders;
    last = i;
  }
  const bool is_clear = contenders == 1 && claims.membership[last] != 0.5f;
  const int32_t first = static_cast<int32_t>(2 * last) + (claims.membership[last] == 1.0f);
  for (int64_t p = 0; p < kTileRows * kTileColumns; ++p) {
    // Nobody claims less than nothing; one that is alone is not asked.
    contest.best[p] = is_clear ? __builtin_inff() : -1.0f;
    contest.code[p] = is_clear ? first : 0;
  }
  for (int64_t i = 0; i < work.planes.count; ++i) {
    const bool can_win = !(claims.upper[i] < claims.floor);
    const float membership = claims.membership[i];
    int64_t own = membership == 1.0f ? pixels : 0;
    if ((can_win && !is_clear) || membership == 0.5f) {
      own = claim(work, rows, columns, i, contest, memory);
    }
    add(work.own, i, own);
  }
  if (is_clear) {
    add(work.won, last, pixels);
    add(work.both, last, claims.membership[last] == 1.0f ? pixels : 0);
    return;
  }
  for (int64_t i = 0; i < work.planes.count; ++i) {
    if (!(claims.upper[i] < claims.floor)) count_won(work, rows, columns, i, contest.code);
  }
}

void compete(const Work& work, int64_t strip, float* memory) {
  const Plan& plan = work.plan;
  const AxisTile& rows = plan.rows[strip];
  const int64_t step = padded(work.planes.count);
  float* low = memory + kTileScratch;
  float* high = low + (plan.column_tiles + 1) * step;
  float* columns = high + (plan.column_tiles + 1) * step;
  float* best = columns + 2 * (plan.size.mask[1] + kPad);
  int32_t code[kTileRows * kTileColumns];
  for (int64_t i = 0; i < 2 * (plan.column_tiles + 1) * step; ++i) low[i] = 0.0f;
  for (int64_t i = 0; i < work.planes.count; ++i) {
    bound_strip(plan, work.planes.at(i, plan.size), rows, columns, low + i, high + i, step);
  }
  for (int64_t t = 0; t < plan.column_tiles; ++t) {
    const AxisTile& tile = plan.columns[t];
    settle(work, rows, tile, low + t * step, high + t * step, {best, code}, memory);
    for (int64_t y = 0; y < rows.second.count; ++y) {
      uint16_t* to = work.codes + (rows.begin + y) * plan.size.output[1] + tile.begin;
      for (int64_t x = 0; x < tile.second.count; ++x) {
        to[x] = static_cast<uint16_t>(code[y * kTileColumns + x]);
      }
    }
  }
}

}  // namespace
}  // namespace m2f::images::panoptic
