#pragma once

// Made from op.toml by `python -m m2f.plugins.header`; change it there.
// clang-format off

#include "common/op_spec.h"

namespace m2f::masked_attention {

enum Input : int32_t {
  kInputQ,
  kInputK,
  kInputV,
  kInputMaskLogits,
};

enum Attribute : int32_t {
  kAttributeHeads,
};

constexpr TensorSpec kInputs[] = {
    {"q", "NQC", 0, Presence::kRequired},
    {"k", "NSC", 0, Presence::kRequired},
    {"v", "NSC", 0, Presence::kRequired},
    {"mask_logits", "NQS", 0, Presence::kRequired},
};

constexpr TensorSpec kOutputs[] = {
    {"output", "NQC", 0, Presence::kRequired},
};

constexpr AttributeSpec kAttributes[] = {
    {"heads", AttributeKind::kInt, true, 0.0f},
};

constexpr Signature kSignatures[] = {
    {{Storage::kFloat32}},
    {{Storage::kFloat16}},
    {{Storage::kBFloat16}},
};

constexpr OpSpec kSpec = {"MaskedAttention", "m2f", 1,
                         kInputs, kOutputs, kAttributes, kSignatures};

}  // namespace m2f::masked_attention
