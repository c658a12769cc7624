#pragma once

#include "common/storage.h"
#include "ops/masked_attention/math.h"

namespace m2f::masked_attention {

constexpr int64_t kKeys = 64;          // positions of one block: the bits of one word
constexpr int64_t kLargestTile = 128;  // queries in one task

// One call, split into tasks that any thread may run: first see() for each query of each image,
// then attend() for each of tasks(). What a task computes does not depend on the others.
struct Work {
  Shape shape;
  Storage storage;
  const void* q;
  const void* k;
  const void* v;
  const void* mask_logits;
  void* output;

  uint64_t* seen;  // [N, Q, blocks]: bit i of word b says that position 64 b + i is seen
  int64_t padded;  // D rounded up to whole vectors

  M2F_HD_METHOD int64_t blocks() const { return (shape.positions + kKeys - 1) / kKeys; }
  M2F_HD_METHOD int64_t tiles() const {
    return (shape.queries + kLargestTile - 1) / kLargestTile;
  }
  M2F_HD_METHOD int64_t tile_size() const { return (shape.queries + tiles() - 1) / tiles(); }
  M2F_HD_METHOD int64_t tasks() const { return shape.batch * shape.heads * tiles(); }

  // Floats of scratch memory that one task needs.
  M2F_HD_METHOD int64_t scratch() const {
    const int64_t block = kKeys * (shape.depth() + padded);
    return block + tile_size() * (shape.depth() + padded + 2) + 4 * kKeys + 64;
  }
};

}  // namespace m2f::masked_attention
