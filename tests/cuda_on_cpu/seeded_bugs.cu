// Kernels for the emulator's self-test: some right, most wrong in one way each. The names of
// those that are right begin with "right".

#include <cuda_runtime.h>

#include "common/cuda/ptx.cuh"

namespace {

using m2f::ptx::dynamic_shared;

__global__ void right_barrier(float* out, const float*) {
  __shared__ float s[64];
  s[threadIdx.x] = 1.0f * threadIdx.x;
  __syncthreads();
  out[threadIdx.x] = s[63 - threadIdx.x];
}

__global__ void no_barrier(float* out, const float*) {
  __shared__ float s[64];
  s[threadIdx.x] = 1.0f;
  out[threadIdx.x] = s[63 - threadIdx.x];
}

__global__ void right_syncwarp(float* out, const float*) {
  __shared__ float s[64];
  s[threadIdx.x] = 1.0f;
  __syncwarp();
  out[threadIdx.x] = s[threadIdx.x ^ 1];
}

__global__ void no_syncwarp(float* out, const float*) {
  __shared__ float s[64];
  s[threadIdx.x] = 1.0f;
  out[threadIdx.x] = s[threadIdx.x ^ 1];
}

// A shuffle makes lanes meet, but says nothing about memory.
__global__ void shuffle_is_no_fence(float* out, const float*) {
  __shared__ float s[64];
  s[threadIdx.x] = 1.0f;
  const float one = __shfl_sync(0xFFFFFFFFu, 1.0f, 0);
  out[threadIdx.x] = s[threadIdx.x ^ 1] * one;
}

__global__ void syncwarp_of_the_wrong_half(float* out, const float*) {
  __shared__ float s[64];
  s[threadIdx.x] = 1.0f;
  __syncwarp(threadIdx.x % 32 < 16 ? 0x0000FFFFu : 0xFFFF0000u);
  out[threadIdx.x] = s[threadIdx.x ^ 16];
}

__global__ void right_half_warps(float* out, const float*) {
  __shared__ float s[64];
  s[threadIdx.x] = 1.0f;
  __syncwarp(threadIdx.x % 32 < 16 ? 0x0000FFFFu : 0xFFFF0000u);
  out[threadIdx.x] = s[threadIdx.x ^ 8];
}

__global__ void read_past_the_end(float* out, const float* in) {
  out[threadIdx.x] = in[threadIdx.x + 1];
}

__global__ void write_past_the_end(float* out, const float*) { out[threadIdx.x + 65] = 1.0f; }

__global__ void past_dynamic_shared(float* out, const float*) {
  float* s = dynamic_shared<float>();
  s[threadIdx.x + 1] = 1.0f;
  __syncthreads();
  out[threadIdx.x] = s[threadIdx.x + 1];
}

__global__ void unwritten_shared(float* out, const float*) {
  __shared__ float s[64];
  if (threadIdx.x > 0) s[threadIdx.x] = 1.0f;
  __syncthreads();
  out[threadIdx.x] = s[threadIdx.x];
}

__global__ void unwritten_dynamic_shared(float* out, const float*) {
  float* s = dynamic_shared<float>();
  if (threadIdx.x > 0) s[threadIdx.x] = 1.0f;
  __syncthreads();
  out[threadIdx.x] = s[threadIdx.x];
}

__global__ void unwritten_global(float* out, const float*) { out[threadIdx.x] += 1.0f; }

__global__ void barrier_in_a_branch(float* out, const float*) {
  if (threadIdx.x < 16) __syncthreads();
  out[threadIdx.x] = 1.0f;
}

__global__ void two_barriers(float* out, const float*) {
  if (threadIdx.x < 32) {
    __syncthreads();
  } else {
    __syncthreads();
  }
  out[threadIdx.x] = 1.0f;
}

__global__ void shuffle_in_a_branch(float* out, const float*) {
  float x = 1.0f;
  if (threadIdx.x < 16) {
    x = __shfl_xor_sync(0xFFFFFFFFu, x, 1);
  } else {
    __syncthreads();
  }
  out[threadIdx.x] = x;
}

__global__ void shuffle_from_outside(float* out, const float*) {
  const unsigned half = threadIdx.x % 32 < 16 ? 0x0000FFFFu : 0xFFFF0000u;
  out[threadIdx.x] = __shfl_xor_sync(half, 1.0f, 16);
}

__global__ void misaligned(float* out, const float* in) {
  const float2 pair = *reinterpret_cast<const float2*>(in + 1);
  out[threadIdx.x] = pair.x + pair.y;
}

__global__ void two_threads_write(float* out, const float*) {
  out[threadIdx.x / 2] = static_cast<float>(threadIdx.x);
}

__global__ void two_blocks_write(float* out, const float*) {
  out[threadIdx.x] = static_cast<float>(blockIdx.x);
}

__global__ void a_block_reads_what_another_writes(float* out, const float*) {
  if (blockIdx.x == 0) out[threadIdx.x] = 1.0f;
  if (blockIdx.x == 1) out[64 + threadIdx.x] = out[threadIdx.x];
}

__global__ void right_atomics(float* out, const float*) {
  __shared__ int count;
  if (threadIdx.x == 0) count = 0;
  __syncthreads();
  atomicAdd(&count, 1);
  __syncthreads();
  if (blockIdx.x == 0) out[threadIdx.x] = static_cast<float>(count);
}

__global__ void atomics_beside_a_write(float* out, const float*) {
  __shared__ int count;
  count = 0;
  atomicAdd(&count, 1);
  __syncthreads();
  if (blockIdx.x == 0) out[threadIdx.x] = static_cast<float>(count);
}

__global__ void overwrites_what_others_read(float* out, const float*) {
  __shared__ float s[64];
  s[threadIdx.x] = 1.0f;
  __syncthreads();
  out[threadIdx.x] = s[0];
  s[threadIdx.x] = 2.0f;
}

__global__ void right_copy(float* out, const float* in) {
  float* s = dynamic_shared<float>();
  m2f::ptx::cp_async<4>(s + threadIdx.x, in + threadIdx.x);
  m2f::ptx::cp_async_commit();
  m2f::ptx::cp_async_wait<0>();
  __syncthreads();
  out[threadIdx.x] = s[63 - threadIdx.x];
}

__global__ void copy_without_wait(float* out, const float* in) {
  float* s = dynamic_shared<float>();
  m2f::ptx::cp_async<4>(s + threadIdx.x, in + threadIdx.x);
  m2f::ptx::cp_async_commit();
  __syncthreads();
  out[threadIdx.x] = s[threadIdx.x];
}

__global__ void copy_waits_for_too_little(float* out, const float* in) {
  float* s = dynamic_shared<float>();
  m2f::ptx::cp_async<4>(s + threadIdx.x, in + threadIdx.x);
  m2f::ptx::cp_async_commit();
  m2f::ptx::cp_async_wait<1>();
  __syncthreads();
  out[threadIdx.x] = s[threadIdx.x];
}

__global__ void copy_without_barrier(float* out, const float* in) {
  float* s = dynamic_shared<float>();
  m2f::ptx::cp_async<4>(s + threadIdx.x, in + threadIdx.x);
  m2f::ptx::cp_async_commit();
  m2f::ptx::cp_async_wait<0>();
  out[threadIdx.x] = s[63 - threadIdx.x];
}

using Kernel = void (*)(float*, const float*);

int launch(Kernel kernel, unsigned blocks, float* out, const float* in) {
  cudaLaunchConfig_t config = {};
  config.gridDim = dim3(blocks);
  config.blockDim = dim3(64);
  config.dynamicSmemBytes = 64 * sizeof(float);
  return cudaLaunchKernelEx(&config, kernel, out, in);
}

}  // namespace

#define CASE(name, blocks)                                                               \
  extern "C" __attribute__((visibility("default"))) int name##_launch(float* out,        \
                                                                      const float* in) { \
    return launch(&name, blocks, out, in);                                               \
  }

CASE(right_barrier, 1)
CASE(no_barrier, 1)
CASE(right_syncwarp, 1)
CASE(no_syncwarp, 1)
CASE(shuffle_is_no_fence, 1)
CASE(syncwarp_of_the_wrong_half, 1)
CASE(right_half_warps, 1)
CASE(read_past_the_end, 1)
CASE(write_past_the_end, 1)
CASE(past_dynamic_shared, 1)
CASE(unwritten_shared, 1)
CASE(unwritten_dynamic_shared, 1)
CASE(unwritten_global, 1)
CASE(barrier_in_a_branch, 1)
CASE(two_barriers, 1)
CASE(shuffle_in_a_branch, 1)
CASE(shuffle_from_outside, 1)
CASE(misaligned, 1)
CASE(two_threads_write, 1)
CASE(two_blocks_write, 2)
CASE(a_block_reads_what_another_writes, 2)
CASE(right_atomics, 3)
CASE(atomics_beside_a_write, 1)
CASE(overwrites_what_others_read, 1)
CASE(right_copy, 1)
CASE(copy_without_wait, 1)
CASE(copy_waits_for_too_little, 1)
CASE(copy_without_barrier, 1)
