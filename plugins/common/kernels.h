#pragma once

#include "ops/masked_attention/kernel.h"
#include "ops/ms_deform_attn/kernel.h"

// The CPU kernels, once per instruction set, and the choice between them at run time.

namespace m2f {

struct Kernels {
  const char* name;
  int64_t lanes;  // floats in a vector
  void (*ms_deform_attn_pack)(const ms_deform_attn::Work&, int64_t task);
  void (*ms_deform_attn)(const ms_deform_attn::Work&, int64_t task);
  void (*masked_attention_see)(const masked_attention::Work&, int64_t query);
  void (*masked_attention)(const masked_attention::Work&, int64_t task, float* memory);
};

// Those this machine can run, the fastest first; null past the last. Index 0 always exists.
const Kernels* kernels(int index);

}  // namespace m2f
