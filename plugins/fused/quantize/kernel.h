#pragma once

#include "fused/activation.h"

namespace m2f::quantize {

// How numbers become bytes. Of signed and unsigned ones only the range differs: what is
// stored are the low eight bits of an integer.
struct Grid {
  float scale;
  float low;  // in steps from zero, as `high`
  float high;
  int32_t zero;
};

// One call, split into tasks that any thread may run, each some elements in a row.
struct Work {
  fused::Activation activation;
  Grid grid;
  int64_t count;
  const float* x;
  uint8_t* output;

  // As many as fit the first caches together with what they become, and whole vectors: only
  // the very last one of a call may be a part.
  static constexpr int64_t kTask = 16384;

  M2F_HD_METHOD int64_t tasks() const { return (count + kTask - 1) / kTask; }
};

}  // namespace m2f::quantize
