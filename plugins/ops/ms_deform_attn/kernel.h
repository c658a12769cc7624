#pragma once

#include "common/storage.h"
#include "ops/ms_deform_attn/math.h"

namespace m2f::ms_deform_attn {

constexpr int32_t kPackRows = 256;   // positions one task copies
constexpr int32_t kQueryTile = 512;  // queries of one head in one task

// One call, split into tasks that any thread may run: first pack() for each of pack_tasks(),
// then attend() for each of tasks(). What a task computes does not depend on the others.
struct Work {
  Shape shape;
  Storage storage;
  const void* value;
  const void* sampling;
  void* output;

  // Each head's column of value apart, as float: [N, M, S, padded]. Neighbouring positions of a
  // head are then neighbours in memory: in [S, C] they are C apart, fall into few sets of the
  // first cache and evict each other.
  float* columns;
  int64_t padded;  // D rounded up to whole vectors

  // Facts of the level that sample j = (l, p) reads, repeated so that vectors can load them.
  alignas(64) float width[kMaxSamples];
  alignas(64) float height[kMaxSamples];
  alignas(64) int32_t stride[kMaxSamples];
  alignas(64) int32_t start[kMaxSamples];

  int64_t packs_per_image() const { return (shape.positions + kPackRows - 1) / kPackRows; }
  int64_t pack_tasks() const { return shape.batch * packs_per_image(); }
  int64_t tiles() const { return (shape.positions + kQueryTile - 1) / kQueryTile; }
  int64_t tasks() const { return shape.batch * shape.heads * tiles(); }
};

}  // namespace m2f::ms_deform_attn
