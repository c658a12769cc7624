#pragma once

#include "common/kernels.h"
#include "common/parallel.h"
#include "common/status.h"
#include "ops/ms_deform_attn/math.h"
#include "ops/ms_deform_attn/spec.h"

namespace m2f::ms_deform_attn {

struct Attributes {
  int64_t heads = 0;
  int64_t points = 0;
  float value_scale = 1.0f;
  int64_t level_count = 0;                   // 0 where sizes come with the inputs
  int64_t level_sides[2 * kMaxLevels] = {};  // H_0, W_0, H_1, W_1, ...
};

// From what a node has, in the order of kAttributes.
Status read_attributes(const AttributeValue values[], Attributes* attributes);

// Checks one call and says what disagrees; `inputs` as in kInputs, levels last.
Status make_call(const Attributes& attributes, const TensorView inputs[], int64_t input_count,
                 Shape* shape, Format* format);

// Checks sizes: `value` and `sampling` are [N, S, C] and [N, S, R]; `sides` holds `level_count`
// pairs of height and width.
Status make_shape(const int64_t value[3], const int64_t sampling[3], const int64_t* sides,
                  int64_t level_count, const Attributes& attributes, Shape* shape);

// Checks types, and the scale that belongs to them.
Status check(const Format& format);

// Runs on the CPU. Fails only for want of memory.
Status forward(const Shape& shape, const Format& format, const void* value,
               const void* sampling, void* output, const Kernels& kernels,
               const Parallel& parallel);

// The same in plain loops (cpu.h), on this thread.
void forward_plain(const Shape& shape, const Format& format, const void* value,
                   const void* sampling, void* output);

}  // namespace m2f::ms_deform_attn
