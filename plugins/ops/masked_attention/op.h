#pragma once

#include "common/kernels.h"
#include "common/parallel.h"
#include "common/status.h"
#include "common/storage.h"
#include "ops/masked_attention/math.h"
#include "ops/masked_attention/spec.h"

namespace m2f::masked_attention {

struct Attributes {
  int64_t heads = 0;
};

// From what a node has, in the order of kAttributes.
Status read_attributes(const AttributeValue values[], Attributes* attributes);

// Checks one call and says what disagrees; `inputs` as in kInputs.
Status make_call(const Attributes& attributes, const TensorView inputs[], Shape* shape);

// Checks sizes and says which two disagree: q [N, Q, C], k and v [N, S, C], mask [N, Q, S].
Status make_shape(const int64_t q[3], const int64_t k[3], const int64_t v[3],
                  const int64_t mask[3], const Attributes& attributes, Shape* shape);

// Runs on the CPU. Fails only for want of memory.
Status forward(const Shape& shape, Storage storage, const void* q, const void* k, const void* v,
               const void* mask_logits, void* output, const Kernels& kernels,
               const Parallel& parallel);

// The same in plain loops (cpu.h), on this thread.
void forward_plain(const Shape& shape, Storage storage, const void* q, const void* k,
                   const void* v, const void* mask_logits, void* output);

}  // namespace m2f::masked_attention
