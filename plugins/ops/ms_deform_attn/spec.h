#pragma once

// Made from op.toml by `python -m m2f.plugins.header`; change it there.
// clang-format off

#include "common/op_spec.h"

namespace m2f::ms_deform_attn {

enum Input : int32_t {
  kInputValue,
  kInputSampling,
  kInputLevels,
};

enum Attribute : int32_t {
  kAttributeHeads,
  kAttributePoints,
  kAttributeLevelShapes,
  kAttributeValueScale,
};

constexpr TensorSpec kInputs[] = {
    {"value", "NSC", 1, Presence::kRequired},
    {"sampling", "NSR", 0, Presence::kRequired},
    {"levels", "NCHW", 0, Presence::kVariadic},
};

constexpr TensorSpec kOutputs[] = {
    {"output", "NSC", 0, Presence::kRequired},
};

constexpr AttributeSpec kAttributes[] = {
    {"heads", AttributeKind::kInt, true, 0.0f},
    {"points", AttributeKind::kInt, true, 0.0f},
    {"level_shapes", AttributeKind::kInts, false, 0.0f},
    {"value_scale", AttributeKind::kFloat, false, 1.0f},
};

constexpr Signature kSignatures[] = {
    {{Storage::kFloat32, Storage::kFloat32}},
    {{Storage::kFloat16, Storage::kFloat16}},
    {{Storage::kBFloat16, Storage::kBFloat16}},
    {{Storage::kFloat32, Storage::kInt8}},
    {{Storage::kFloat16, Storage::kInt8}},
    {{Storage::kBFloat16, Storage::kInt8}},
};

constexpr OpSpec kSpec = {"MSDeformAttn", "m2f", 1,
                         kInputs, kOutputs, kAttributes, kSignatures};

}  // namespace m2f::ms_deform_attn
