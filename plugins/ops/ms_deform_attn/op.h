#pragma once

#include "common/kernels.h"
#include "common/parallel.h"
#include "common/status.h"
#include "common/storage.h"
#include "ops/ms_deform_attn/math.h"

namespace m2f::ms_deform_attn {

struct Attributes {
  int64_t heads;
  int64_t points;
};

// Checks sizes and says which two disagree. `value` and `sampling` are [N, S, C] and [N, S, R];
// `levels` holds `level_count` pairs of height and width.
Status make_shape(const int64_t value[3], const int64_t sampling[3], const int64_t* levels,
                  int64_t level_count, const Attributes& attributes, Shape* shape);

// Runs on the CPU. Fails only for want of memory.
Status forward(const Shape& shape, Storage storage, const void* value, const void* sampling,
               void* output, const Kernels& kernels, const Parallel& parallel);

// The same in plain loops (cpu.h), on this thread.
void forward_plain(const Shape& shape, Storage storage, const void* value, const void* sampling,
                   void* output);

}  // namespace m2f::ms_deform_attn
