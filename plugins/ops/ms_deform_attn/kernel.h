#pragma once

#include "ops/ms_deform_attn/math.h"

namespace m2f::ms_deform_attn {

constexpr int32_t kPackRows = 256;  // positions one task copies
constexpr int32_t kTileWidth = 16;  // queries of one task
constexpr int32_t kTileHeight = 8;

// Queries of one task: a rectangle of one level.
struct Tile {
  int32_t level;
  int32_t top, bottom;  // rows [top, bottom)
  int32_t left, right;  // columns [left, right)
};

// One call, split into tasks that any thread may run: first pack() for each of pack_tasks(),
// then attend() for each of tasks(). What a task computes does not depend on the others.
struct Work {
  Shape shape;
  Format format;
  const void* value;
  const void* sampling;
  void* output;

  // Each head's column of value apart, as float: [N, M, S, padded]. Neighbouring positions of a
  // head are then neighbours in memory: in [S, C] they are C apart, fall into few sets of the
  // first cache and evict each other.
  float* columns;
  int64_t padded;  // D rounded up to whole vectors

  M2F_HD_METHOD int64_t packs_per_image() const {
    return (shape.positions + kPackRows - 1) / kPackRows;
  }
  M2F_HD_METHOD int64_t pack_tasks() const { return shape.batch * packs_per_image(); }

  M2F_HD_MEMBER int32_t tiles_across(const Level& level) {
    return (level.width + kTileWidth - 1) / kTileWidth;
  }
  M2F_HD_METHOD int64_t tiles_of(const Level& level) const {
    return int64_t{tiles_across(level)} * ((level.height + kTileHeight - 1) / kTileHeight);
  }
  M2F_HD_METHOD int64_t tiles() const {
    int64_t count = 0;
    for (int32_t l = 0; l < shape.levels; ++l) count += tiles_of(shape.level[l]);
    return count;
  }
  M2F_HD_METHOD Tile tile(int64_t index) const {
    int32_t l = 0;
    for (; index >= tiles_of(shape.level[l]); ++l) index -= tiles_of(shape.level[l]);
    const Level& level = shape.level[l];
    const int32_t across = tiles_across(level);
    const int32_t top = static_cast<int32_t>(index / across) * kTileHeight;
    const int32_t left = static_cast<int32_t>(index % across) * kTileWidth;
    return {l, top, top + kTileHeight < level.height ? top + kTileHeight : level.height, left,
            left + kTileWidth < level.width ? left + kTileWidth : level.width};
  }
  M2F_HD_METHOD int64_t tasks() const { return shape.batch * tiles(); }
};

}  // namespace m2f::ms_deform_attn
