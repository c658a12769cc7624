#pragma once

#include "fused/group_norm/kernel.h"
#include "fused/layer_norm/kernel.h"
#include "fused/linear/kernel.h"
#include "fused/quantize/kernel.h"
#include "fused/window_attention/kernel.h"
#include "images/instance.h"
#include "images/panoptic.h"
#include "images/resize.h"
#include "images/semantic.h"
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
  void (*layer_norm)(const layer_norm::Work&, int64_t task);
  void (*group_norm_measure)(const group_norm::Work&, int64_t task);
  void (*group_norm)(const group_norm::Work&, int64_t task, float* memory);
  void (*quantize)(const quantize::Work&, int64_t task);
  void (*window_attention)(const window_attention::Work&, int64_t task, float* memory);
  void (*panoptic_compete)(const images::panoptic::Work&, int64_t strip, float* memory);
  void (*semantic_classify)(const images::semantic::Work&, int64_t strip, float* memory);
  void (*instance_binarise)(const images::instance::Work&, int64_t task, float* memory);
  void (*resize_antialiased)(const images::resize::Work&, int64_t strip, float* memory);
  int64_t linear_panel;  // columns
  void (*linear_pack)(const linear::Packing&, const float* weight, float* packed,
                      int64_t panel);
  void (*linear_multiply)(const linear::Work&, int64_t task);
  void (*erf_of)(const float* x, int64_t count, float* y);
};

// Those this machine can run, the fastest first; null past the last. Index 0 always exists.
const Kernels* kernels(int index);

}  // namespace m2f
