// What the tests call, with C's names.

#include "ops/masked_attention/cuda.h"

namespace {

m2f::masked_attention::Shape shape(const int64_t sizes[5]) {
  return {sizes[0], sizes[1], sizes[2], sizes[3] * sizes[4], static_cast<int32_t>(sizes[3])};
}

}  // namespace

#define M2F_TEST extern "C" __attribute__((visibility("default")))

// sizes: N, Q, S, M, D.
M2F_TEST int64_t masked_attention_workspace(const int64_t sizes[5]) {
  return static_cast<int64_t>(m2f::masked_attention::workspace_bytes(shape(sizes)));
}

M2F_TEST int masked_attention(const int64_t sizes[5], int storage, int tactic, const void* q,
                              const void* k, const void* v, const void* mask_logits,
                              void* output, void* workspace) {
  return m2f::masked_attention::forward_cuda(shape(sizes), static_cast<m2f::Storage>(storage),
                                             q, k, v, mask_logits, output, workspace, tactic,
                                             nullptr);
}
