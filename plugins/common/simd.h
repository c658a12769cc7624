#pragma once

#include "common/host_device.h"
#include "common/storage.h"

#if defined(__SSE4_1__)
#include <immintrin.h>
#elif defined(__ARM_NEON)
#include <arm_neon.h>
#endif

// Vectors of floats, as wide as the instruction set this file is compiled for: the compiler's
// own vector types (GCC and Clang), so that one source serves SSE4.2, AVX2, AVX-512 and NEON.
// Only for translation units that are compiled once per instruction set (common/kernels.cc).

// Before a loop: as if its body stood there n times. For loops over registers n is at least
// their number, or else an array of them would lie in memory.
#define M2F_PRAGMA(text) _Pragma(#text)
#if defined(__clang__)
#define M2F_UNROLL(n) M2F_PRAGMA(unroll n)
#else
#define M2F_UNROLL(n) M2F_PRAGMA(GCC unroll n)
#endif

namespace m2f {

#if defined(__AVX512F__)
constexpr int kLanes = 16;
#elif defined(__AVX2__)
constexpr int kLanes = 8;
#else
constexpr int kLanes = 4;
#endif

using Floats = float __attribute__((vector_size(4 * kLanes)));
using Ints = int32_t __attribute__((vector_size(4 * kLanes)));
using Bits = uint32_t __attribute__((vector_size(4 * kLanes)));

template <>
struct Lane<Floats> {
  using Int = Ints;

  M2F_HD_MEMBER Ints to_int(Floats x) { return __builtin_convertvector(x, Ints); }
  M2F_HD_MEMBER Floats to_float(Ints x) { return __builtin_convertvector(x, Floats); }

  // Rounded once where there is an instruction for it, that is everywhere but on SSE4.2.
  M2F_HD_MEMBER Floats multiply_add(Floats a, Floats b, Floats c) {
#if defined(__AVX512F__)
    return reinterpret_cast<Floats>(_mm512_fmadd_ps(
        reinterpret_cast<__m512>(a), reinterpret_cast<__m512>(b), reinterpret_cast<__m512>(c)));
#elif defined(__FMA__)
    return reinterpret_cast<Floats>(_mm256_fmadd_ps(
        reinterpret_cast<__m256>(a), reinterpret_cast<__m256>(b), reinterpret_cast<__m256>(c)));
#elif defined(__ARM_FEATURE_FMA)
    return reinterpret_cast<Floats>(vfmaq_f32(reinterpret_cast<float32x4_t>(c),
                                              reinterpret_cast<float32x4_t>(a),
                                              reinterpret_cast<float32x4_t>(b)));
#else
    return a * b + c;
#endif
  }

  M2F_HD_MEMBER Floats power_of_two(Floats shifted, uint32_t magic_bits) {
    const Bits bits = (reinterpret_cast<Bits>(shifted) - magic_bits + 127u) << 23;
    return reinterpret_cast<Floats>(bits);
  }
};

M2F_HD Floats load(const float* from) {
  Floats x;
  __builtin_memcpy(&x, from, sizeof x);
  return x;
}

M2F_HD Ints load(const int32_t* from) {
  Ints x;
  __builtin_memcpy(&x, from, sizeof x);
  return x;
}

template <class Vector, class Scalar>
M2F_HD void store_vector(Vector x, Scalar* to) {
  static_assert(sizeof(x) == sizeof(*to) * kLanes, "a vector of another type");
  __builtin_memcpy(to, &x, sizeof x);
}

// from[index[i]] in lane i.
M2F_HD Floats gather(const float* from, Ints index) {
#if defined(__AVX512F__)
  // With a value for lanes left out: GCC 12 warns of its own undefined one.
  return reinterpret_cast<Floats>(_mm512_mask_i32gather_ps(
      _mm512_setzero_ps(), 0xFFFF, reinterpret_cast<__m512i>(index), from, sizeof *from));
#elif defined(__AVX2__)
  return reinterpret_cast<Floats>(
      _mm256_i32gather_ps(from, reinterpret_cast<__m256i>(index), sizeof *from));
#else
  Floats x;
  for (int i = 0; i < kLanes; ++i) x[i] = from[index[i]];
  return x;
#endif
}

// Four floats, whatever the instruction set: what a transposition moves.
using Quad = float __attribute__((vector_size(16)));

template <class T>
M2F_HD Quad load_quad(const T* from) {
  return Quad{to_float(from[0]), to_float(from[1]), to_float(from[2]), to_float(from[3])};
}

M2F_HD Quad load_quad(const float* from) {
  Quad x;
  __builtin_memcpy(&x, from, sizeof x);
  return x;
}

// Four of the eight floats of x and y, by their places.
template <int kA, int kB, int kC, int kD>
M2F_HD Quad pick(Quad x, Quad y) {
#if defined(__clang__)
  return __builtin_shufflevector(x, y, kA, kB, kC, kD);
#else
  using Places = int32_t __attribute__((vector_size(16)));
  return __builtin_shuffle(x, y, Places{kA, kB, kC, kD});
#endif
}

// to[i][r] = from[r][i], a square of four; `pitch` is that of `to`.
M2F_HD void store_transposed(const Quad (&from)[4], float* to, int64_t pitch) {
  const Quad low01 = pick<0, 4, 1, 5>(from[0], from[1]);
  const Quad low23 = pick<0, 4, 1, 5>(from[2], from[3]);
  const Quad high01 = pick<2, 6, 3, 7>(from[0], from[1]);
  const Quad high23 = pick<2, 6, 3, 7>(from[2], from[3]);
  const Quad rows[4] = {pick<0, 1, 4, 5>(low01, low23), pick<2, 3, 6, 7>(low01, low23),
                        pick<0, 1, 4, 5>(high01, high23), pick<2, 3, 6, 7>(high01, high23)};
  for (int i = 0; i < 4; ++i) __builtin_memcpy(to + i * pitch, &rows[i], sizeof rows[i]);
}

// Half as wide as so many lanes; read from where the whole is, not copied.
template <int kCount>
struct Narrower;
template <>
struct Narrower<16> {
  using Type = float __attribute__((vector_size(32), may_alias));
};
template <>
struct Narrower<8> {
  using Type = float __attribute__((vector_size(16), may_alias));
};
template <>
struct Narrower<4> {
  using Type = float __attribute__((vector_size(8), may_alias));
};

// Combines all lanes by halves, in a fixed order. (GCC 12 keeps a vector of which parts are
// copied in memory.)
template <int kCount, class Vector, class Combine>
M2F_HD float reduce(const Vector& x, Combine combine) {
  if constexpr (kCount == 2) {
    return combine(x[0], x[1]);
  } else {
    const auto* half = reinterpret_cast<const typename Narrower<kCount>::Type*>(&x);
    return reduce<kCount / 2>(combine(half[0], half[1]), combine);
  }
}

M2F_HD float largest(Floats x) {
  return reduce<kLanes>(x, [](auto a, auto b) { return a > b ? a : b; });
}

M2F_HD float total(Floats x) {
  return reduce<kLanes>(x, [](auto a, auto b) { return a + b; });
}

// Bit i says that x[i] is not negative; -0 and NaN are not.
M2F_HD uint32_t not_negative(Floats x) {
#if defined(__AVX512F__)
  const __m512 zero = _mm512_setzero_ps();
  return _mm512_cmp_ps_mask(reinterpret_cast<__m512>(x), zero, _CMP_NLT_UQ);
#elif defined(__AVX2__)
  const __m256 zero = _mm256_setzero_ps();
  const __m256 seen = _mm256_cmp_ps(reinterpret_cast<__m256>(x), zero, _CMP_NLT_UQ);
  return static_cast<uint32_t>(_mm256_movemask_ps(seen));
#elif defined(__SSE4_1__)
  const __m128 seen = _mm_cmpnlt_ps(reinterpret_cast<__m128>(x), _mm_setzero_ps());
  return static_cast<uint32_t>(_mm_movemask_ps(seen));
#else
  uint32_t bits = 0;
  for (int i = 0; i < kLanes; ++i) bits |= (x[i] < 0.0f ? 0u : 1u) << i;
  return bits;
#endif
}

// Bit i says that lane i of a comparison's result holds.
M2F_HD uint32_t bits_where(Ints holds) {
#if defined(__AVX512F__)
  return _mm512_movepi32_mask(reinterpret_cast<__m512i>(holds));
#elif defined(__AVX2__)
  return static_cast<uint32_t>(_mm256_movemask_ps(reinterpret_cast<__m256>(holds)));
#elif defined(__SSE4_1__)
  return static_cast<uint32_t>(_mm_movemask_ps(reinterpret_cast<__m128>(holds)));
#else
  uint32_t bits = 0;
  for (int i = 0; i < kLanes; ++i) bits |= (holds[i] != 0 ? 1u : 0u) << i;
  return bits;
#endif
}

// Keeps x where the bit of the lane is set.
M2F_HD Floats where_bit(uint32_t bits, Floats x, Floats otherwise) {
  Bits lane;
  for (int i = 0; i < kLanes; ++i) lane[i] = 1u << i;
  return (lane & bits) != 0u ? x : otherwise;
}

}  // namespace m2f
