#pragma once

// Made from op.toml by `python -m m2f.plugins.header`; change it there.
// clang-format off

#include "common/op_spec.h"

namespace m2f::group_norm {

enum Input : int32_t {
  kInputX,
  kInputWeight,
  kInputBias,
  kInputCoarse,
};

enum Attribute : int32_t {
  kAttributeGroups,
  kAttributeEpsilon,
  kAttributeActivation,
};

constexpr TensorSpec kInputs[] = {
    {"x", "NCHW", 0, Presence::kRequired},
    {"weight", "C", 0, Presence::kRequired},
    {"bias", "C", 0, Presence::kRequired},
    {"coarse", "NCIJ", 0, Presence::kOptional},
};

constexpr TensorSpec kOutputs[] = {
    {"output", "NCHW", 0, Presence::kRequired},
};

constexpr AttributeSpec kAttributes[] = {
    {"groups", AttributeKind::kInt, true, 0.0f},
    {"epsilon", AttributeKind::kFloat, false, 1e-05f},
    {"activation", AttributeKind::kInt, true, 0.0f},
};

constexpr Signature kSignatures[] = {
    {{Storage::kFloat32}},
};

constexpr OpSpec kSpec = {"GroupNorm", "m2f.cpu", 1,
                         kInputs, kOutputs, kAttributes, kSignatures};

}  // namespace m2f::group_norm
