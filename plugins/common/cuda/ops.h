#pragma once

#include "ops/masked_attention/cuda.h"
#include "ops/masked_attention/op.h"
#include "ops/ms_deform_attn/cuda.h"
#include "ops/ms_deform_attn/op.h"

// The ops on CUDA, as the adapters of frameworks take them (tensorrt/plugin.h, ort/cuda_op.h).
// Traits give
//
//   kSpec                          what op.toml says
//   kTactics                       ways to run it, 1 to kTactics; 0 lets the kernels choose
//   Attributes, read()             what a node says
//   Plan, plan()                   one call, its sizes checked; made when shapes change
//   workspace_bytes()              enough for these shapes and all smaller ones, every tactic
//   run()                          enqueues; never waits, allocates or logs

namespace m2f {

struct MaskedAttention {
  static constexpr const OpSpec& kSpec = masked_attention::kSpec;
  static constexpr int32_t kTactics = masked_attention::kTactics;
  using Attributes = masked_attention::Attributes;

  struct Plan {
    masked_attention::Shape shape;
    Storage storage;
  };

  static Status read(const AttributeValue values[], Attributes* attributes) {
    return masked_attention::read_attributes(values, attributes);
  }

  static Status plan(const Attributes& attributes, const TensorView inputs[], int64_t,
                     Plan* plan) {
    plan->storage = inputs[0].type;
    return masked_attention::make_call(attributes, inputs, &plan->shape);
  }

  static size_t workspace_bytes(const Attributes& attributes, const TensorView inputs[]) {
    const int64_t* q = inputs[masked_attention::kInputQ].dims;
    const int64_t* k = inputs[masked_attention::kInputK].dims;
    return masked_attention::workspace_bytes(
        {q[0], q[1], k[1], q[2], static_cast<int32_t>(attributes.heads)});
  }

  static cudaError_t run(const Plan& plan, int32_t tactic, const void* const* inputs,
                         void* output, void* workspace, cudaStream_t stream) {
    return masked_attention::forward_cuda(plan.shape, plan.storage, inputs[0], inputs[1],
                                          inputs[2], inputs[3], output, workspace, tactic,
                                          stream);
  }
};

struct MsDeformAttn {
  static constexpr const OpSpec& kSpec = ms_deform_attn::kSpec;
  static constexpr int32_t kTactics = ms_deform_attn::kTactics;
  using Attributes = ms_deform_attn::Attributes;

  struct Plan {
    ms_deform_attn::Shape shape;
    ms_deform_attn::Format format;
  };

  static Status read(const AttributeValue values[], Attributes* attributes) {
    return ms_deform_attn::read_attributes(values, attributes);
  }

  static Status plan(const Attributes& attributes, const TensorView inputs[], int64_t count,
                     Plan* plan) {
    return ms_deform_attn::make_call(attributes, inputs, count, &plan->shape, &plan->format);
  }

  static size_t workspace_bytes(const Attributes&, const TensorView[]) { return 0; }

  static cudaError_t run(const Plan& plan, int32_t tactic, const void* const* inputs,
                         void* output, void*, cudaStream_t stream) {
    return ms_deform_attn::forward_cuda(plan.shape, plan.format, inputs[0], inputs[1], output,
                                        tactic, stream);
  }
};

}  // namespace m2f
