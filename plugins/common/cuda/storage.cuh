#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>
#include <cstring>

#include "common/storage.h"

// Loads and stores of the storage types on CUDA, by its own types.

namespace m2f::cuda {

// CUDA's type for one of ours, and the type of two.
template <class T>
struct Device;
template <>
struct Device<float> {
  using Type = float;
  using Pair = float2;
};
template <>
struct Device<Half> {
  using Type = __half;
  using Pair = __half2;
};
template <>
struct Device<BFloat16> {
  using Type = __nv_bfloat16;
  using Pair = __nv_bfloat162;
};

static __device__ __forceinline__ float2 floats_of(float2 x) { return x; }
static __device__ __forceinline__ float2 floats_of(__half2 x) { return __half22float2(x); }
static __device__ __forceinline__ float2 floats_of(__nv_bfloat162 x) {
  return __bfloat1622float2(x);
}

static __device__ __forceinline__ void narrow(float2 x, float2* to) { *to = x; }
static __device__ __forceinline__ void narrow(float2 x, __half2* to) {
  *to = __floats2half2_rn(x.x, x.y);
}
static __device__ __forceinline__ void narrow(float2 x, __nv_bfloat162* to) {
  *to = __floats2bfloat162_rn(x.x, x.y);
}

// One element, through the read-only cache.
static __device__ __forceinline__ float load_float(const float* from) { return __ldg(from); }
template <class T>
static __device__ __forceinline__ float load_float(const T* from) {
  return static_cast<float>(__ldg(reinterpret_cast<const typename Device<T>::Type*>(from)));
}

// The bits of a 32-bit pair, and back.
template <class Pair>
static __device__ __forceinline__ uint32_t bits_of(Pair pair) {
  static_assert(sizeof(Pair) == sizeof(uint32_t), "not a 32-bit pair");
  uint32_t bits;
  memcpy(&bits, &pair, sizeof bits);
  return bits;
}
template <class Pair>
static __device__ __forceinline__ Pair pair_of(uint32_t bits) {
  static_assert(sizeof(Pair) == sizeof(uint32_t), "not a 32-bit pair");
  Pair pair;
  memcpy(&pair, &bits, sizeof pair);
  return pair;
}

// Writes kCount floats as T, sixteen bytes at a time; `to` is aligned for that.
template <class T, int kCount>
static __device__ __forceinline__ void store_vectors(const float (&x)[kCount], T* to) {
  using Pair = typename Device<T>::Pair;
  constexpr int kPairs = 16 / static_cast<int>(sizeof(Pair));
  static_assert(kCount % (2 * kPairs) == 0, "not whole vectors");
#pragma unroll
  for (int i = 0; i < kCount; i += 2 * kPairs) {
    Pair pairs[kPairs];
#pragma unroll
    for (int k = 0; k < kPairs; ++k) {
      narrow(make_float2(x[i + 2 * k], x[i + 2 * k + 1]), &pairs[k]);
    }
    uint4 vector;
    memcpy(&vector, pairs, sizeof vector);
    *reinterpret_cast<uint4*>(to + i) = vector;
  }
}

}  // namespace m2f::cuda
