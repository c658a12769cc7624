#pragma once

#include <math.h>

#include <cstdint>

// What the mathematics of an op may use on every backend. A function marked M2F_HD does not
// allocate, throw, log or know a framework, and has internal linkage: the same header is
// compiled for several instruction sets, and the linker must never merge those copies.

#if defined(__CUDACC__)
#define M2F_HD static __host__ __device__ __forceinline__
#define M2F_HD_MEMBER static __host__ __device__ __forceinline__
#define M2F_HD_METHOD __host__ __device__ __forceinline__
#else
#define M2F_HD [[maybe_unused]] static inline __attribute__((always_inline))
#define M2F_HD_MEMBER static inline __attribute__((always_inline))
#define M2F_HD_METHOD inline __attribute__((always_inline))
#endif

namespace m2f {

// The integers beside a real type. The mathematics is written once over `Real`: float here,
// a vector of floats in common/simd.h.
template <class Real>
struct Lane;

template <>
struct Lane<float> {
  using Int = int32_t;

  M2F_HD_MEMBER int32_t to_int(float x) { return static_cast<int32_t>(x); }
  M2F_HD_MEMBER float to_float(int32_t x) { return static_cast<float>(x); }

  // a * b + c, rounded once.
  M2F_HD_MEMBER float multiply_add(float a, float b, float c) { return fmaf(a, b, c); }

  // 2^n for the integer n held in the low bits of a float `magic + n`; see common/exp.h.
  M2F_HD_MEMBER float power_of_two(float shifted, uint32_t magic_bits) {
    uint32_t bits;
    __builtin_memcpy(&bits, &shifted, sizeof bits);
    bits = (bits - magic_bits + 127u) << 23;
    float power;
    __builtin_memcpy(&power, &bits, sizeof power);
    return power;
  }
};

// A constant in every lane. x - 0 is x for every x; x + 0 is not for -0, so it is computed.
template <class Real>
M2F_HD Real splat(float x) {
  return x - Real{};
}

// NaN gives `low` in both: what a network predicts is never trusted to be a number.
template <class Real>
M2F_HD Real at_least(Real x, Real low) {
  return x > low ? x : low;
}

template <class Real>
M2F_HD Real at_most(Real x, Real high) {
  return x < high ? x : high;
}

// Between 0 and 1; NaN gives 0.
M2F_HD float saturate(float x) {
#if defined(__CUDA_ARCH__)
  return __saturatef(x);
#else
  return at_most(at_least(x, 0.0f), 1.0f);
#endif
}

M2F_HD float absolute(float x) { return __builtin_fabsf(x); }

#if defined(__CUDA_ARCH__)
// One instruction; a branch-free select would be two.
M2F_HD float at_least(float x, float low) { return fmaxf(x, low); }
M2F_HD float at_most(float x, float high) { return fminf(x, high); }
#endif

}  // namespace m2f
