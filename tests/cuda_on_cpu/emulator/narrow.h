#pragma once

#include <cmath>
#include <cstdint>

#include "emulator/intrinsics.h"

// The two 16-bit formats, and arithmetic in them with one rounding per operation, to nearest,
// ties to even, as the hardware has it.

namespace cuda_on_cpu {

struct HalfFormat {
  static uint16_t bits_of(float x) { return bit_cast<uint16_t>(static_cast<_Float16>(x)); }
  static float value_of(uint16_t bits) { return static_cast<float>(bit_cast<_Float16>(bits)); }
};

struct BFloat16Format {
  static uint16_t bits_of(float x) {
    if (x != x) return 0x7FFF;
    const uint32_t bits = __float_as_uint(x);
    return static_cast<uint16_t>((bits + 0x7FFFu + (bits >> 16 & 1u)) >> 16);
  }
  static float value_of(uint16_t bits) { return __uint_as_float(uint32_t{bits} << 16); }
};

// a * b + c rounded to odd: its last bit says whether anything was lost, so that rounding it
// again, to a narrower format, rounds the exact result. The product is exact in double.
inline float fused_to_odd(float a, float b, float c) {
  const double product = double{a} * b;
  const double sum = product + c;
  if (!std::isfinite(sum)) return static_cast<float>(sum);
  const double back = sum - product;
  const double lost = (product - (sum - back)) + (c - back);
  float rounded = static_cast<float>(sum);
  if (!std::isfinite(rounded) || (rounded == sum && lost == 0.0)) return rounded;
  const double excess = (rounded - sum) - lost;  // only its sign matters
  if ((excess > 0.0) == (rounded > 0.0)) rounded = std::nextafter(rounded, 0.0f);
  return __uint_as_float(__float_as_uint(rounded) | 1u);
}

// One number of a format. Sums, products and quotients of such numbers, rounded to float and
// then to the format, are correct: float has more than twice as many bits.
template <class Format>
struct alignas(2) Narrow {
  uint16_t bits;

  Narrow() = default;
  Narrow(float x) : bits(Format::bits_of(x)) {}
  operator float() const { return Format::value_of(bits); }
};

template <class Format>
struct alignas(4) NarrowPair {
  using Element = Narrow<Format>;
  Element x, y;

  template <class Operation>
  static NarrowPair each(Operation operation, const NarrowPair& a) {
    return {Element(operation(float(a.x))), Element(operation(float(a.y)))};
  }
  template <class Operation>
  static NarrowPair each(Operation operation, const NarrowPair& a, const NarrowPair& b) {
    return {Element(operation(float(a.x), float(b.x))),
            Element(operation(float(a.y), float(b.y)))};
  }
};

inline float largest(float a, float b) { return a != a ? b : (b != b || a > b ? a : b); }
inline float smallest(float a, float b) { return -largest(-a, -b); }

}  // namespace cuda_on_cpu

template <class F>
using CudaNarrow = cuda_on_cpu::Narrow<F>;
template <class F>
using CudaPair = cuda_on_cpu::NarrowPair<F>;

template <class F>
CudaNarrow<F> __hadd(CudaNarrow<F> a, CudaNarrow<F> b) {
  return float(a) + float(b);
}
template <class F>
CudaNarrow<F> __hsub(CudaNarrow<F> a, CudaNarrow<F> b) {
  return float(a) - float(b);
}
template <class F>
CudaNarrow<F> __hmul(CudaNarrow<F> a, CudaNarrow<F> b) {
  return float(a) * float(b);
}
template <class F>
CudaNarrow<F> __hfma(CudaNarrow<F> a, CudaNarrow<F> b, CudaNarrow<F> c) {
  return cuda_on_cpu::fused_to_odd(a, b, c);
}
template <class F>
CudaNarrow<F> __hmax(CudaNarrow<F> a, CudaNarrow<F> b) {
  return cuda_on_cpu::largest(a, b);
}
template <class F>
bool __hlt(CudaNarrow<F> a, CudaNarrow<F> b) {
  return float(a) < float(b);
}

template <class F>
CudaPair<F> __hadd2(CudaPair<F> a, CudaPair<F> b) {
  return CudaPair<F>::each([](float x, float y) { return x + y; }, a, b);
}
template <class F>
CudaPair<F> __hsub2(CudaPair<F> a, CudaPair<F> b) {
  return CudaPair<F>::each([](float x, float y) { return x - y; }, a, b);
}
template <class F>
CudaPair<F> __hmul2(CudaPair<F> a, CudaPair<F> b) {
  return CudaPair<F>::each([](float x, float y) { return x * y; }, a, b);
}
template <class F>
CudaPair<F> __hfma2(CudaPair<F> a, CudaPair<F> b, CudaPair<F> c) {
  return {__hfma(a.x, b.x, c.x), __hfma(a.y, b.y, c.y)};
}
template <class F>
CudaPair<F> __hmax2(CudaPair<F> a, CudaPair<F> b) {
  return CudaPair<F>::each(cuda_on_cpu::largest, a, b);
}
template <class F>
CudaPair<F> __hmin2(CudaPair<F> a, CudaPair<F> b) {
  return CudaPair<F>::each(cuda_on_cpu::smallest, a, b);
}
template <class F>
float __low2float(CudaPair<F> a) {
  return a.x;
}
template <class F>
float __high2float(CudaPair<F> a) {
  return a.y;
}
