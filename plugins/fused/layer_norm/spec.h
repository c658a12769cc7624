#pragma once

// Made from op.toml by `python -m m2f.plugins.header`; change it there.
// clang-format off

#include "common/op_spec.h"

namespace m2f::layer_norm {

enum Input : int32_t {
  kInputX,
  kInputWeight,
  kInputBias,
};

enum Attribute : int32_t {
  kAttributeEpsilon,
};

constexpr TensorSpec kInputs[] = {
    {"x", "*C", 0, Presence::kRequired},
    {"weight", "C", 0, Presence::kRequired},
    {"bias", "C", 0, Presence::kRequired},
};

constexpr TensorSpec kOutputs[] = {
    {"output", "*C", 0, Presence::kRequired},
};

constexpr AttributeSpec kAttributes[] = {
    {"epsilon", AttributeKind::kFloat, false, 1e-05f},
};

constexpr Signature kSignatures[] = {
    {{Storage::kFloat32}},
};

constexpr OpSpec kSpec = {"LayerNorm", "m2f.cpu", 1,
                         kInputs, kOutputs, kAttributes, kSignatures};

}  // namespace m2f::layer_norm
