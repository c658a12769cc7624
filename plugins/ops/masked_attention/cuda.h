#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>

#include "common/storage.h"
#include "ops/masked_attention/math.h"

namespace m2f::masked_attention {

// Ways to cut the keys of one call: small parts for large GPUs, large ones for small GPUs.
constexpr int32_t kTactics = 3;

// Bytes of device memory a call needs beside its tensors: the mask as bits, and what each part
// of the keys contributes. Enough for every smaller shape, too.
size_t workspace_bytes(const Shape& shape);

// Enqueues the op: q and output [N, Q, C], k and v [N, S, C], mask_logits [N, Q, S], of one
// type; 16-byte aligned, as is the workspace. `tactic` is 1 to kTactics, or 0 for the kernels'
// own choice. Returns what the launches said; never waits.
cudaError_t forward_cuda(const Shape& shape, Storage storage, const void* q, const void* k,
                         const void* v, const void* mask_logits, void* output, void* workspace,
                         int32_t tactic, cudaStream_t stream);

}  // namespace m2f::masked_attention
