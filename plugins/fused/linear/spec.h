#pragma once

// Made from op.toml by `python -m m2f.plugins.header`; change it there.
// clang-format off

#include "common/op_spec.h"

namespace m2f::linear {

enum Input : int32_t {
  kInputX,
  kInputWeight,
  kInputBias,
  kInputResidual,
};

enum Attribute : int32_t {
  kAttributeActivation,
};

constexpr TensorSpec kInputs[] = {
    {"x", "*K", 0, Presence::kRequired},
    {"weight", "KN", 0, Presence::kRequired},
    {"bias", "N", 0, Presence::kRequired},
    {"residual", "*N", 0, Presence::kOptional},
};

constexpr TensorSpec kOutputs[] = {
    {"output", "*N", 0, Presence::kRequired},
};

constexpr AttributeSpec kAttributes[] = {
    {"activation", AttributeKind::kInt, true, 0.0f},
};

constexpr Signature kSignatures[] = {
    {{Storage::kFloat32}},
};

constexpr OpSpec kSpec = {"Linear", "m2f.cpu", 1,
                         kInputs, kOutputs, kAttributes, kSignatures};

}  // namespace m2f::linear
