#pragma once

#include <cstddef>
#include <cstdint>

// CUDA's vector types, with its alignments: a 16-byte load must be of an aligned address.

#define CUDA_ON_CPU_VECTORS(Name, T, kAlign2, kAlign4)               \
  struct Name##1 { T x; };                                           \
  struct alignas(kAlign2) Name##2 { T x, y; };                       \
  struct Name##3 { T x, y, z; };                                     \
  struct alignas(kAlign4) Name##4 { T x, y, z, w; };                 \
  inline Name##2 make_##Name##2(T x, T y) { return {x, y}; }         \
  inline Name##3 make_##Name##3(T x, T y, T z) { return {x, y, z}; } \
  inline Name##4 make_##Name##4(T x, T y, T z, T w) { return {x, y, z, w}; }

CUDA_ON_CPU_VECTORS(char, signed char, 2, 4)
CUDA_ON_CPU_VECTORS(uchar, unsigned char, 2, 4)
CUDA_ON_CPU_VECTORS(short, short, 4, 8)
CUDA_ON_CPU_VECTORS(ushort, unsigned short, 4, 8)
CUDA_ON_CPU_VECTORS(int, int, 8, 16)
CUDA_ON_CPU_VECTORS(uint, unsigned, 8, 16)
CUDA_ON_CPU_VECTORS(float, float, 8, 16)
#undef CUDA_ON_CPU_VECTORS

struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};

// Set whenever a thread is taken up.
extern uint3 threadIdx;
extern uint3 blockIdx;
extern dim3 blockDim;
extern dim3 gridDim;
constexpr int warpSize = 32;
