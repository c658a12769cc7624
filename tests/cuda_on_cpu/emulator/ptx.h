#pragma once

#include "cuda_bf16.h"
#include "cuda_fp16.h"

// What plugins/common/cuda/ptx.cuh has on the CPU, by the same names.

namespace cuda_on_cpu {

void async_copy(void* to, const void* from, int bytes, int source_bytes, const void* code);
void async_commit();
void async_wait(int pending, const void* code, const char* file, int line);

// ldmatrix.m8n8.x{count}.b16: lane 8 i + j names row j of matrix i.
void ldmatrix(uint32_t* fragments, int count, const void* row, bool transposed,
              const void* code);

// D = A B + D, A [16, 16] row-major, B [16, 8] column-major, D [16, 8] float.
void mma_m16n8k16(float* d, const uint32_t* a, const uint32_t* b, float (*value_of)(uint16_t));

}  // namespace cuda_on_cpu

namespace m2f::ptx {

template <class T>
T* dynamic_shared() {
  return static_cast<T*>(cuda_on_cpu::dynamic_shared());
}

template <int kBytes>
void cp_async(void* to, const void* from, int source_bytes = kBytes) {
  static_assert(kBytes == 4 || kBytes == 8 || kBytes == 16, "cp.async copies 4, 8 or 16 bytes");
  cuda_on_cpu::async_copy(to, from, kBytes, source_bytes, __builtin_return_address(0));
}

inline void cp_async_commit() { cuda_on_cpu::async_commit(); }

template <int kPending>
void cp_async_wait(const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
  cuda_on_cpu::async_wait(kPending, __builtin_return_address(0), file, line);
}

template <int kCount>
void ldmatrix(uint32_t (&fragments)[kCount], const void* row) {
  cuda_on_cpu::ldmatrix(fragments, kCount, row, false, __builtin_return_address(0));
}

template <int kCount>
void ldmatrix_transposed(uint32_t (&fragments)[kCount], const void* row) {
  cuda_on_cpu::ldmatrix(fragments, kCount, row, true, __builtin_return_address(0));
}

inline void mma_m16n8k16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2],
                         __half) {
  cuda_on_cpu::mma_m16n8k16(d, a, b, &cuda_on_cpu::HalfFormat::value_of);
}

inline void mma_m16n8k16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2],
                         __nv_bfloat16) {
  cuda_on_cpu::mma_m16n8k16(d, a, b, &cuda_on_cpu::BFloat16Format::value_of);
}

inline float exp2(float x) {
  using namespace cuda_on_cpu;
  return flushed(approximate(std::exp2(flushed(x))));
}

inline float reciprocal(float x) {
  using namespace cuda_on_cpu;
  return flushed(approximate(1.0f / flushed(x)));
}

inline int32_t dot2_low(uint32_t x, uint32_t y, int32_t sum) {
  const auto byte = [&](int i) { return static_cast<int8_t>(y >> 8 * i); };
  return sum + static_cast<int32_t>(x & 0xFFFFu) * byte(0) +
         static_cast<int32_t>(x >> 16) * byte(1);
}

inline int32_t dot2_high(uint32_t x, uint32_t y, int32_t sum) {
  return dot2_low(x, y >> 16, sum);
}

}  // namespace m2f::ptx
