#pragma once

#include "ort/ort_abi.h"

namespace m2f::ort {

// Adds the ops once more, for ONNX Runtime's CUDA provider; nothing in a library without CUDA
// kernels. Sessions that have no such provider do not look at them.
#if defined(M2F_HAS_CUDA)
Status* add_cuda_ops(const Functions& functions, CustomOpDomain* domain, bool is_first_only);
#else
inline Status* add_cuda_ops(const Functions&, CustomOpDomain*, bool) { return nullptr; }
#endif

}  // namespace m2f::ort
