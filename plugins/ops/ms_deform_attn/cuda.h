#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "ops/ms_deform_attn/math.h"

namespace m2f::ms_deform_attn {

// Ways to run one call. The tiled ones are for Mask2Former's sizes (cuda_tiled.cuh) and give
// way to the plain one where others are asked for.
enum class CudaTactic : int32_t {
  kAutomatic = 0,
  kTile8x8 = 1,  // larger blocks, which read less twice
  kTile8x4 = 2,  // more blocks, for small images
  kPlain = 3,    // any size
};
constexpr int32_t kTactics = 3;

// Enqueues the op: value and output [N, S, C], sampling [N, S, R], stored as `format` says and
// 16-byte aligned. `tactic` is 1 to kTactics, or 0 for the kernels' own choice. Returns what
// the launch said; never waits.
cudaError_t forward_cuda(const Shape& shape, const Format& format, const void* value,
                         const void* sampling, void* output, int32_t tactic,
                         cudaStream_t stream);

}  // namespace m2f::ms_deform_attn
