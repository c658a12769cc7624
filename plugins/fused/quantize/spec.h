#pragma once

// Made from op.toml by `python -m m2f.plugins.header`; change it there.
// clang-format off

#include "common/op_spec.h"

namespace m2f::quantize {

enum Input : int32_t {
  kInputX,
  kInputScale,
  kInputZero,
};

enum Attribute : int32_t {
  kAttributeActivation,
};

constexpr TensorSpec kInputs[] = {
    {"x", "*C", 0, Presence::kRequired},
    {"scale", "", 0, Presence::kRequired},
    {"zero", "", 1, Presence::kRequired},
};

constexpr TensorSpec kOutputs[] = {
    {"output", "*C", 1, Presence::kRequired},
};

constexpr AttributeSpec kAttributes[] = {
    {"activation", AttributeKind::kInt, true, 0.0f},
};

constexpr Signature kSignatures[] = {
    {{Storage::kFloat32, Storage::kUInt8}},
    {{Storage::kFloat32, Storage::kInt8}},
};

constexpr OpSpec kSpec = {"Quantize", "m2f.cpu", 1,
                         kInputs, kOutputs, kAttributes, kSignatures};

}  // namespace m2f::quantize
