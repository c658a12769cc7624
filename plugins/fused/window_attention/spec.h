#pragma once

// Made from op.toml by `python -m m2f.plugins.header`; change it there.
// clang-format off

#include "common/op_spec.h"

namespace m2f::window_attention {

enum Input : int32_t {
  kInputQkv,
  kInputPadding,
  kInputPositionBias,
};

enum Attribute : int32_t {
  kAttributeWindow,
  kAttributeShift,
};

constexpr TensorSpec kInputs[] = {
    {"qkv", "NHWE", 0, Presence::kRequired},
    {"padding", "QC", 0, Presence::kRequired},
    {"position_bias", "MTT", 0, Presence::kRequired},
};

constexpr TensorSpec kOutputs[] = {
    {"output", "NHWC", 0, Presence::kRequired},
};

constexpr AttributeSpec kAttributes[] = {
    {"window", AttributeKind::kInt, true, 0.0f},
    {"shift", AttributeKind::kInt, true, 0.0f},
};

constexpr Signature kSignatures[] = {
    {{Storage::kFloat32}},
};

constexpr OpSpec kSpec = {"WindowAttention", "m2f.cpu", 1,
                         kInputs, kOutputs, kAttributes, kSignatures};

}  // namespace m2f::window_attention
