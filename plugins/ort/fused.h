#pragma once

#include "ort/ort_abi.h"

namespace m2f::ort {

// Adds the ops that only this library has, in a domain of their own; see `model.cpu.onnx`.
Status* add_fused_ops(const Functions& functions, SessionOptions* options);

}  // namespace m2f::ort
