// One thread, or one warp, for each of the emulator's arithmetic: what test_arithmetic.py
// checks.

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include "common/cuda/ptx.cuh"

namespace {

template <class Pair>
__global__ void pairs(const Pair* a, const Pair* b, const Pair* c, Pair* out, int count) {
  const int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (i >= count) return;
  out[i] = __hadd2(a[i], b[i]);
  out[count + i] = __hsub2(a[i], b[i]);
  out[2 * count + i] = __hmul2(a[i], b[i]);
  out[3 * count + i] = __hfma2(a[i], b[i], c[i]);
}

// Fragments as they lie in registers: a [32, 4], b [32, 2], d [32, 4].
template <class T>
__global__ void product(const uint32_t* a, const uint32_t* b, float* d) {
  const int lane = static_cast<int>(threadIdx.x);
  uint32_t mine_a[4];
  uint32_t mine_b[2];
  float sum[4];
  for (int i = 0; i < 4; ++i) mine_a[i] = a[4 * lane + i];
  for (int i = 0; i < 2; ++i) mine_b[i] = b[2 * lane + i];
  for (int i = 0; i < 4; ++i) sum[i] = d[4 * lane + i];
  m2f::ptx::mma_m16n8k16(sum, mine_a, mine_b, T{});
  for (int i = 0; i < 4; ++i) d[4 * lane + i] = sum[i];
}

// Four 8 x 8 matrices of 16-bit numbers, rows of 16 bytes one after the other; out [2, 32, 4].
// In shared memory, rows are `stride` times 16 bytes apart.
__global__ void matrices(const uint4* rows, uint32_t* out, int stride) {
  uint4* s = m2f::ptx::dynamic_shared<uint4>();
  const int lane = static_cast<int>(threadIdx.x);
  s[lane * stride] = rows[lane];
  __syncwarp();
  uint32_t plain[4];
  uint32_t transposed[4];
  m2f::ptx::ldmatrix(plain, &s[lane * stride]);
  m2f::ptx::ldmatrix_transposed(transposed, &s[lane * stride]);
  for (int i = 0; i < 4; ++i) {
    out[4 * lane + i] = plain[i];
    out[4 * (32 + lane) + i] = transposed[i];
  }
}

// out [8, 32]: what each lane gets of the lanes' numbers.
__global__ void collectives(int* out) {
  const int lane = static_cast<int>(threadIdx.x);
  const int x = 100 + lane;
  out[lane] = __shfl_sync(0xFFFFFFFFu, x, 5, 8);
  out[32 + lane] = __shfl_xor_sync(0xFFFFFFFFu, x, 17);
  out[64 + lane] = __shfl_up_sync(0xFFFFFFFFu, x, 3, 16);
  out[96 + lane] = __shfl_down_sync(0xFFFFFFFFu, x, 3, 16);
  out[128 + lane] = static_cast<int>(__ballot_sync(0xFFFFFFFFu, lane % 3 == 0));
  out[160 + lane] = __any_sync(0xFFFFFFFFu, lane == 31);
  out[192 + lane] = __all_sync(0xFFFFFFFFu, lane < 31);
  out[224 + lane] = __shfl_xor_sync(0xFFFFFFFFu, x, 16, 16);
}

// out [3, N]: sums of two products with weights of 16 bits, and bytes picked by a selector.
__global__ void integers(const uint32_t* x, const uint32_t* y, int* out, int count) {
  const int i = static_cast<int>(threadIdx.x);
  if (i >= count) return;
  out[i] = m2f::ptx::dot2_low(x[i], y[i], 7);
  out[count + i] = m2f::ptx::dot2_high(x[i], y[i], 7);
  out[2 * count + i] = static_cast<int>(__byte_perm(x[i], y[i], 0x5140));
}

template <class... Parameters, class... Arguments>
int launch(void (*kernel)(Parameters...), unsigned blocks, unsigned threads,
           Arguments... arguments) {
  cudaLaunchConfig_t config = {};
  config.gridDim = dim3(blocks);
  config.blockDim = dim3(threads);
  config.dynamicSmemBytes = 32 * 8 * sizeof(uint4);
  return cudaLaunchKernelEx(&config, kernel, arguments...);
}

}  // namespace

#pragma GCC visibility push(default)
extern "C" {

int half_pairs(const __half2* a, const __half2* b, const __half2* c, __half2* out, int count) {
  return launch(&pairs<__half2>, static_cast<unsigned>(count + 63) / 64, 64, a, b, c, out,
                count);
}

int bfloat16_pairs(const __nv_bfloat162* a, const __nv_bfloat162* b, const __nv_bfloat162* c,
                   __nv_bfloat162* out, int count) {
  return launch(&pairs<__nv_bfloat162>, static_cast<unsigned>(count + 63) / 64, 64, a, b, c,
                out, count);
}

int half_product(const uint32_t* a, const uint32_t* b, float* d) {
  return launch(&product<__half>, 1, 32, a, b, d);
}

int bfloat16_product(const uint32_t* a, const uint32_t* b, float* d) {
  return launch(&product<__nv_bfloat16>, 1, 32, a, b, d);
}

int load_matrices(const uint4* rows, uint32_t* out, int stride) {
  return launch(&matrices, 1, 32, rows, out, stride);
}

int warp_collectives(int* out) { return launch(&collectives, 1, 32, out); }

int integer_dots(const uint32_t* x, const uint32_t* y, int* out, int count) {
  return launch(&integers, 1, 64, x, y, out, count);
}

}  // extern "C"
#pragma GCC visibility pop
