#pragma once

// All inline PTX of this project, one function per instruction, and what else a C++ compiler
// could not read. On the CPU (tests/cuda_on_cpu) the same functions are emulated.

#if !defined(__CUDACC__)
#include "emulator/ptx.h"
#else

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>

namespace m2f::ptx {

#define M2F_PTX static __device__ __forceinline__

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 800
#define M2F_PTX_TURING 1
#endif

// The dynamic shared memory of the block, aligned for 16-byte accesses.
template <class T>
M2F_PTX T* dynamic_shared() {
  extern __shared__ __align__(16) unsigned char m2f_dynamic_shared[];
  return reinterpret_cast<T*>(m2f_dynamic_shared);
}

M2F_PTX uint32_t shared_address(const void* p) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(p));
}

// Copies source_bytes of kBytes from global to shared memory, and zeros for the rest. Turing
// has no such instruction and copies at once.
template <int kBytes>
M2F_PTX void cp_async(void* to, const void* from, int source_bytes = kBytes) {
  static_assert(kBytes == 4 || kBytes == 8 || kBytes == 16, "cp.async copies 4, 8 or 16 bytes");
#if defined(M2F_PTX_TURING)
  auto* target = static_cast<uint32_t*>(to);
  const auto* source = static_cast<const uint32_t*>(from);
#pragma unroll
  for (int i = 0; i < kBytes / 4; ++i) target[i] = 4 * i < source_bytes ? source[i] : 0u;
#else
  if constexpr (kBytes == 16) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;\n" ::"r"(shared_address(to)),
                 "l"(from), "r"(source_bytes)
                 : "memory");
  } else {
    asm volatile("cp.async.ca.shared.global [%0], [%1], %2, %3;\n" ::"r"(shared_address(to)),
                 "l"(from), "n"(kBytes), "r"(source_bytes)
                 : "memory");
  }
#endif
}

M2F_PTX void cp_async_commit() {
#if !defined(M2F_PTX_TURING)
  asm volatile("cp.async.commit_group;\n" ::: "memory");
#endif
}

// Waits for all but the kPending newest groups of this thread; other threads see them after a
// barrier.
template <int kPending>
M2F_PTX void cp_async_wait() {
#if !defined(M2F_PTX_TURING)
  asm volatile("cp.async.wait_group %0;\n" ::"n"(kPending) : "memory");
#endif
}

// Loads kCount 8 x 8 matrices of 16-bit numbers; lane 8 i + j gives the address of row j of
// matrix i. Lane l gets elements (l / 4, 2 (l % 4)) and the next of each.
template <int kCount>
M2F_PTX void ldmatrix(uint32_t (&r)[kCount], const void* row) {
  static_assert(kCount == 1 || kCount == 2 || kCount == 4, "ldmatrix loads 1, 2 or 4 matrices");
  const uint32_t address = shared_address(row);
  if constexpr (kCount == 1) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%0}, [%1];\n"
                 : "=r"(r[0])
                 : "r"(address)
                 : "memory");
  } else if constexpr (kCount == 2) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0, %1}, [%2];\n"
                 : "=r"(r[0]), "=r"(r[1])
                 : "r"(address)
                 : "memory");
  } else {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];\n"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(address)
                 : "memory");
  }
}

// The same of the transposed matrices.
template <int kCount>
M2F_PTX void ldmatrix_transposed(uint32_t (&r)[kCount], const void* row) {
  static_assert(kCount == 1 || kCount == 2 || kCount == 4, "ldmatrix loads 1, 2 or 4 matrices");
  const uint32_t address = shared_address(row);
  if constexpr (kCount == 1) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x1.trans.shared.b16 {%0}, [%1];\n"
                 : "=r"(r[0])
                 : "r"(address)
                 : "memory");
  } else if constexpr (kCount == 2) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0, %1}, [%2];\n"
                 : "=r"(r[0]), "=r"(r[1])
                 : "r"(address)
                 : "memory");
  } else {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];\n"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(address)
                 : "memory");
  }
}

// D = A B + D of a whole warp, float sums: A [16, 16] row-major, B [16, 8] column-major. The
// last argument only names the type. Turing does it in two steps.
M2F_PTX void mma_m16n8k16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2],
                          __half) {
#if defined(M2F_PTX_TURING)
#pragma unroll
  for (int k = 0; k < 2; ++k) {
    asm volatile(
        "mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 "
        "{%0, %1, %2, %3}, {%4, %5}, {%6}, {%0, %1, %2, %3};\n"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[2 * k]), "r"(a[2 * k + 1]), "r"(b[k]));
  }
#else
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
      "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};\n"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#endif
}

// Turing's tensor cores have no bfloat16: a launcher must not choose this there.
M2F_PTX void mma_m16n8k16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2],
                          __nv_bfloat16) {
#if defined(M2F_PTX_TURING)
  __trap();
#else
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
      "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};\n"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#endif
}

// 2^x and 1/x to about 2^-22; subnormals are zero.
M2F_PTX float exp2(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;\n" : "=f"(y) : "f"(x));
  return y;
}

M2F_PTX float reciprocal(float x) {
  float y;
  asm("rcp.approx.ftz.f32 %0, %1;\n" : "=f"(y) : "f"(x));
  return y;
}

// sum + x[0] y[0] + x[1] y[1], of two unsigned 16-bit and the low or high two of four signed
// 8-bit integers.
M2F_PTX int32_t dot2_low(uint32_t x, uint32_t y, int32_t sum) {
  int32_t d;
  asm("dp2a.lo.u32.s32 %0, %1, %2, %3;\n" : "=r"(d) : "r"(x), "r"(y), "r"(sum));
  return d;
}

M2F_PTX int32_t dot2_high(uint32_t x, uint32_t y, int32_t sum) {
  int32_t d;
  asm("dp2a.hi.u32.s32 %0, %1, %2, %3;\n" : "=r"(d) : "r"(x), "r"(y), "r"(sum));
  return d;
}

#undef M2F_PTX
#undef M2F_PTX_TURING

}  // namespace m2f::ptx

#endif
