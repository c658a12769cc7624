#pragma once

#include "common/cuda/ptx.cuh"
#include "common/cuda/storage.cuh"

// How the tiled kernel blends the four pixels around a sample, for each storage of value. A
// lane holds 16 bytes of each pixel. A Blend is what it keeps of all samples:
//
//   kChannels   of a lane
//   Weights     of the four pixels, as they are handed from lane to lane
//   weigh()     makes them
//   add()       one sample
//   result()    their sum times a scale

namespace m2f::ms_deform_attn {

constexpr unsigned kAllLanes = 0xFFFFFFFFu;

// Weights 0..1 of the pixels around a sample: upper row left and right, then the lower row.
struct Corners {
  float weight[4];
};

// The same as two pairs of 16 bits; the left pixel is in the low half.
struct PackedCorners {
  uint32_t upper;
  uint32_t lower;
};

static __device__ __forceinline__ Corners shuffle(Corners w, int lane) {
#pragma unroll
  for (float& x : w.weight) x = __shfl_sync(kAllLanes, x, lane);
  return w;
}

static __device__ __forceinline__ PackedCorners shuffle(PackedCorners w, int lane) {
  return {__shfl_sync(kAllLanes, w.upper, lane), __shfl_sync(kAllLanes, w.lower, lane)};
}

static __device__ __forceinline__ PackedCorners packed_halves(const Corners& c) {
  return {cuda::bits_of(__floats2half2_rn(c.weight[0], c.weight[1])),
          cuda::bits_of(__floats2half2_rn(c.weight[2], c.weight[3]))};
}

// The I-th 32-bit word of a vector.
template <int kWord>
static __device__ __forceinline__ uint32_t word(const uint4& v) {
  static_assert(kWord >= 0 && kWord < 4, "four words");
  if constexpr (kWord == 0) return v.x;
  if constexpr (kWord == 1) return v.y;
  if constexpr (kWord == 2) return v.z;
  if constexpr (kWord == 3) return v.w;
}

template <class V>
struct Blend;

template <>
struct Blend<float> {
  static constexpr int kChannels = 4;
  using Weights = Corners;

  float sum[kChannels] = {};

  static __device__ __forceinline__ Weights weigh(const Corners& c) { return c; }

  __device__ __forceinline__ void add(const uint4 (&pixel)[4], const Weights& w) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      sum[0] += w.weight[i] * __uint_as_float(pixel[i].x);
      sum[1] += w.weight[i] * __uint_as_float(pixel[i].y);
      sum[2] += w.weight[i] * __uint_as_float(pixel[i].z);
      sum[3] += w.weight[i] * __uint_as_float(pixel[i].w);
    }
  }

  __device__ __forceinline__ void result(float scale, float (&out)[kChannels]) const {
#pragma unroll
    for (int i = 0; i < kChannels; ++i) out[i] = sum[i] * scale;
  }
};

// One sample in pairs of halves, four roundings; the sum over samples in floats.
template <>
struct Blend<Half> {
  static constexpr int kChannels = 8;
  using Weights = PackedCorners;

  float sum[kChannels] = {};

  static __device__ __forceinline__ Weights weigh(const Corners& c) { return packed_halves(c); }

  __device__ __forceinline__ void add(const uint4 (&pixel)[4], const Weights& w) {
    const __half2 upper = cuda::pair_of<__half2>(w.upper);
    const __half2 lower = cuda::pair_of<__half2>(w.lower);
    const __half2 weight[4] = {__low2half2(upper), __high2half2(upper), __low2half2(lower),
                               __high2half2(lower)};
    add_word<0>(pixel, weight);
    add_word<1>(pixel, weight);
    add_word<2>(pixel, weight);
    add_word<3>(pixel, weight);
  }

  __device__ __forceinline__ void result(float scale, float (&out)[kChannels]) const {
#pragma unroll
    for (int i = 0; i < kChannels; ++i) out[i] = sum[i] * scale;
  }

 private:
  template <int kWord>
  __device__ __forceinline__ void add_word(const uint4 (&pixel)[4],
                                           const __half2 (&weight)[4]) {
    __half2 sample = __hmul2(weight[0], cuda::pair_of<__half2>(word<kWord>(pixel[0])));
#pragma unroll
    for (int i = 1; i < 4; ++i) {
      sample = __hfma2(weight[i], cuda::pair_of<__half2>(word<kWord>(pixel[i])), sample);
    }
    const float2 both = __half22float2(sample);
    sum[2 * kWord] += both.x;
    sum[2 * kWord + 1] += both.y;
  }
};

// bfloat16 has too few bits to add in; its weights are halves, which have more.
template <>
struct Blend<BFloat16> {
  static constexpr int kChannels = 8;
  using Weights = PackedCorners;

  float sum[kChannels] = {};

  static __device__ __forceinline__ Weights weigh(const Corners& c) { return packed_halves(c); }

  __device__ __forceinline__ void add(const uint4 (&pixel)[4], const Weights& w) {
    const float2 upper = __half22float2(cuda::pair_of<__half2>(w.upper));
    const float2 lower = __half22float2(cuda::pair_of<__half2>(w.lower));
    const float weight[4] = {upper.x, upper.y, lower.x, lower.y};
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      add_word<0>(pixel[i], weight[i]);
      add_word<1>(pixel[i], weight[i]);
      add_word<2>(pixel[i], weight[i]);
      add_word<3>(pixel[i], weight[i]);
    }
  }

  __device__ __forceinline__ void result(float scale, float (&out)[kChannels]) const {
#pragma unroll
    for (int i = 0; i < kChannels; ++i) out[i] = sum[i] * scale;
  }

 private:
  template <int kWord>
  __device__ __forceinline__ void add_word(const uint4& pixel, float weight) {
    const uint32_t pair = word<kWord>(pixel);
    sum[2 * kWord] += weight * __uint_as_float(pair << 16);
    sum[2 * kWord + 1] += weight * __uint_as_float(pair & 0xFFFF0000u);
  }
};

// In integers, exactly: weights have 16 bits after the point, and the sum over samples is below
// 64 * 2^16 * 128 = 2^29. A dot product of two pixels is one instruction.
template <>
struct Blend<int8_t> {
  static constexpr int kChannels = 16;
  static constexpr float kOne = 65535.0f;  // weight 1
  using Weights = PackedCorners;

  int32_t sum[kChannels] = {};

  static __device__ __forceinline__ Weights weigh(const Corners& c) {
    return {pair(c.weight[0], c.weight[1]), pair(c.weight[2], c.weight[3])};
  }

  __device__ __forceinline__ void add(const uint4 (&pixel)[4], const Weights& w) {
    add_row<0>(pixel[0], pixel[1], w.upper);
    add_row<1>(pixel[0], pixel[1], w.upper);
    add_row<2>(pixel[0], pixel[1], w.upper);
    add_row<3>(pixel[0], pixel[1], w.upper);
    add_row<0>(pixel[2], pixel[3], w.lower);
    add_row<1>(pixel[2], pixel[3], w.lower);
    add_row<2>(pixel[2], pixel[3], w.lower);
    add_row<3>(pixel[2], pixel[3], w.lower);
  }

  __device__ __forceinline__ void result(float scale, float (&out)[kChannels]) const {
#pragma unroll
    for (int i = 0; i < kChannels; ++i) out[i] = __int2float_rn(sum[i]) * (scale / kOne);
  }

 private:
  // Adding 2^23 leaves the rounded integer in the low bits.
  static __device__ __forceinline__ uint32_t pair(float left, float right) {
    const uint32_t low = __float_as_uint(left * kOne + 0x1p23f);
    const uint32_t high = __float_as_uint(right * kOne + 0x1p23f);
    return __byte_perm(low, high, 0x5410);
  }

  template <int kWord>
  __device__ __forceinline__ void add_row(const uint4& left, const uint4& right,
                                          uint32_t weights) {
    // Left and right pixel of channels 0 and 1, then of 2 and 3, byte by byte.
    const uint32_t front = __byte_perm(word<kWord>(left), word<kWord>(right), 0x5140);
    const uint32_t back = __byte_perm(word<kWord>(left), word<kWord>(right), 0x7362);
    int32_t* to = sum + 4 * kWord;
    to[0] = ptx::dot2_low(weights, front, to[0]);
    to[1] = ptx::dot2_high(weights, front, to[1]);
    to[2] = ptx::dot2_low(weights, back, to[2]);
    to[3] = ptx::dot2_high(weights, back, to[3]);
  }
};

}  // namespace m2f::ms_deform_attn
