#pragma once

#include <cstdint>

#include "common/host_device.h"

// Types tensors are stored in. Arithmetic is float everywhere; these only load and store.

namespace m2f {

enum class Storage : int32_t {
  kFloat32 = 0,
  kFloat16 = 1,
  kBFloat16 = 2,
  kInt8 = 3,
  kUInt8 = 4
};

// Bytes of one element.
M2F_HD int64_t width_of(Storage storage) {
  if (storage == Storage::kInt8 || storage == Storage::kUInt8) return 1;
  return storage == Storage::kFloat32 ? 4 : 2;
}

struct Half {
  uint16_t bits;
};

struct BFloat16 {
  uint16_t bits;
};

M2F_HD float float_from_bits(uint32_t bits) {
  float x;
  __builtin_memcpy(&x, &bits, sizeof x);
  return x;
}

M2F_HD uint32_t bits_from_float(float x) {
  uint32_t bits;
  __builtin_memcpy(&bits, &x, sizeof bits);
  return bits;
}

M2F_HD float to_float(float x) { return x; }

// What it stands for is this times a scale that only its reader knows.
M2F_HD float to_float(int8_t x) { return static_cast<float>(x); }

M2F_HD float to_float(BFloat16 x) { return float_from_bits(uint32_t{x.bits} << 16); }

// The exponent moves by 112; a multiplication by 2^112 does that and normalises subnormals.
M2F_HD float to_float(Half x) {
  const uint32_t sign = uint32_t{x.bits} >> 15 << 31;
  const uint32_t magnitude = (uint32_t{x.bits} & 0x7FFFu) << 13;
  const float finite = float_from_bits(magnitude) * 0x1p112f;
  const uint32_t special = magnitude >= 0x0F800000u ? 0x7F800000u : 0u;  // infinity, NaN
  return float_from_bits(bits_from_float(finite) | special | sign);
}

M2F_HD void store(float x, float* to) { *to = x; }

// Both round to nearest, ties to even.
M2F_HD void store(float x, BFloat16* to) {
  const uint32_t bits = bits_from_float(x);
  const uint32_t rounded = bits + 0x7FFFu + (bits >> 16 & 1u);
  const bool is_nan = (bits & 0x7FFFFFFFu) > 0x7F800000u;
  to->bits = static_cast<uint16_t>(is_nan ? bits >> 16 | 0x40u : rounded >> 16);
}

M2F_HD void store(float x, Half* to) {
  const uint32_t bits = bits_from_float(x);
  const uint32_t sign = bits >> 16 & 0x8000u;
  const uint32_t magnitude = bits & 0x7FFFFFFFu;
  uint32_t half;
  if (magnitude > 0x7F800000u) {
    half = 0x7E00u;  // NaN
  } else if (magnitude >= 0x477FF000u) {
    half = 0x7C00u;  // 65520 and more round to infinity
  } else if (magnitude < 0x38800000u) {
    // Below 2^-14: adding 0.5 aligns the last bit of the sum with a half's last bit.
    half = bits_from_float(float_from_bits(magnitude) + 0.5f) - 0x3F000000u;
  } else {
    half = (magnitude - 0x38000000u + 0xFFFu + (magnitude >> 13 & 1u)) >> 13;
  }
  to->bits = static_cast<uint16_t>(sign | half);
}

}  // namespace m2f
