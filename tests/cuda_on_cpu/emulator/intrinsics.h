#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "emulator/block_api.h"

// CUDA's device functions. Those that the hardware only approximates are made less exact here
// as well: what passes must not owe it to the CPU's better arithmetic.

// ---- barriers and warp collectives; the place of the call is what mutations name ----

inline void __syncthreads(const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
  cuda_on_cpu::barrier(0, file, line);
}
inline int __syncthreads_or(int predicate, const char* file = __builtin_FILE(),
                            int line = __builtin_LINE()) {
  return cuda_on_cpu::barrier(predicate, file, line).any;
}
inline int __syncthreads_and(int predicate, const char* file = __builtin_FILE(),
                             int line = __builtin_LINE()) {
  return cuda_on_cpu::barrier(predicate, file, line).all;
}
inline int __syncthreads_count(int predicate, const char* file = __builtin_FILE(),
                               int line = __builtin_LINE()) {
  return cuda_on_cpu::barrier(predicate, file, line).count;
}
inline void __syncwarp(unsigned mask = cuda_on_cpu::kAllLanes,
                       const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
  cuda_on_cpu::warp_sync(mask, file, line);
}

inline unsigned __ballot_sync(unsigned mask, int predicate) {
  return cuda_on_cpu::warp_vote(mask, predicate);
}
inline int __any_sync(unsigned mask, int predicate) {
  return __ballot_sync(mask, predicate) != 0;
}
inline int __all_sync(unsigned mask, int predicate) {
  return __ballot_sync(mask, predicate == 0) == 0;
}

namespace cuda_on_cpu {

template <class T>
T shuffle(unsigned mask, T value, int source) {
  static_assert(std::is_trivially_copyable_v<T> && sizeof(T) <= 8, "CUDA shuffles 8 bytes");
  warp_shuffle(mask, &value, sizeof value, source);
  return value;
}

inline int lane_index() {
  const unsigned rank = threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
  return static_cast<int>(rank % 32);
}

}  // namespace cuda_on_cpu

// Lanes are taken in segments of `width`; one whose source lies outside keeps its own value.
template <class T>
T __shfl_sync(unsigned mask, T value, int source, int width = 32) {
  const int segment = cuda_on_cpu::lane_index() & ~(width - 1);
  return cuda_on_cpu::shuffle(mask, value, segment + (source & (width - 1)));
}
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int lanes, int width = 32) {
  const int self = cuda_on_cpu::lane_index();
  const int source = self ^ lanes;
  return cuda_on_cpu::shuffle(mask, value, source < (self | (width - 1)) + 1 ? source : self);
}
template <class T>
T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32) {
  const int self = cuda_on_cpu::lane_index();
  const int source = self - static_cast<int>(delta);
  return cuda_on_cpu::shuffle(mask, value, source >= (self & ~(width - 1)) ? source : self);
}
template <class T>
T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32) {
  const int self = cuda_on_cpu::lane_index();
  const int source = self + static_cast<int>(delta);
  return cuda_on_cpu::shuffle(mask, value, source <= (self | (width - 1)) ? source : self);
}

// ---- memory ----

template <class T>
T __ldg(const T* from) {
  return *from;
}
template <class T>
T __ldcg(const T* from) {
  return *from;
}
template <class T>
T __ldcs(const T* from) {
  return *from;
}
template <class T>
void __stcs(T* to, T value) {
  *to = value;
}
inline void __threadfence() {}
inline void __threadfence_block() {}

namespace cuda_on_cpu {

// Threads switch at collectives only, so nothing comes between the read and the write.
template <class T, class Change>
__attribute__((no_sanitize("thread"))) T atomic(T* place, Change change) {
  touch_atomic(place, sizeof(T), __builtin_return_address(0));
  T old;
  load_unchecked(&old, place, sizeof(T));
  T changed = change(old);
  load_unchecked(place, &changed, sizeof(T));
  return old;
}

}  // namespace cuda_on_cpu

template <class T>
T atomicAdd(T* place, T value) {
  return cuda_on_cpu::atomic(place, [=](T old) { return static_cast<T>(old + value); });
}
template <class T>
T atomicMax(T* place, T value) {
  return cuda_on_cpu::atomic(place, [=](T old) { return old < value ? value : old; });
}
template <class T>
T atomicMin(T* place, T value) {
  return cuda_on_cpu::atomic(place, [=](T old) { return value < old ? value : old; });
}
template <class T>
T atomicOr(T* place, T value) {
  return cuda_on_cpu::atomic(place, [=](T old) { return old | value; });
}
template <class T>
T atomicAnd(T* place, T value) {
  return cuda_on_cpu::atomic(place, [=](T old) { return old & value; });
}
template <class T>
T atomicExch(T* place, T value) {
  return cuda_on_cpu::atomic(place, [=](T) { return value; });
}
template <class T>
T atomicCAS(T* place, T expected, T value) {
  return cuda_on_cpu::atomic(place, [=](T old) { return old == expected ? value : old; });
}

// ---- bits and integers ----

namespace cuda_on_cpu {

template <class To, class From>
To bit_cast(From from) {
  static_assert(sizeof(To) == sizeof(From), "casts between sizes");
  To to;
  std::memcpy(&to, &from, sizeof to);
  return to;
}

}  // namespace cuda_on_cpu

inline float __int_as_float(int x) { return cuda_on_cpu::bit_cast<float>(x); }
inline int __float_as_int(float x) { return cuda_on_cpu::bit_cast<int>(x); }
inline float __uint_as_float(unsigned x) { return cuda_on_cpu::bit_cast<float>(x); }
inline unsigned __float_as_uint(float x) { return cuda_on_cpu::bit_cast<unsigned>(x); }
inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline int __clz(int x) { return x == 0 ? 32 : __builtin_clz(static_cast<unsigned>(x)); }

inline unsigned __brev(unsigned x) {
  unsigned reversed = 0;
  for (int i = 0; i < 32; ++i) reversed |= (x >> i & 1u) << (31 - i);
  return reversed;
}

// Bytes of {high, low} picked by the four nibbles of `selector`.
inline unsigned __byte_perm(unsigned low, unsigned high, unsigned selector) {
  const uint64_t both = uint64_t{high} << 32 | low;
  unsigned picked = 0;
  for (int i = 0; i < 4; ++i) {
    const unsigned byte = selector >> 4 * i & 7u;
    picked |= static_cast<unsigned>(both >> 8 * byte & 0xFFu) << 8 * i;
  }
  return picked;
}

template <class T>
T min(T a, T b) {
  return b < a ? b : a;
}
template <class T>
T max(T a, T b) {
  return a < b ? b : a;
}

// ---- numbers ----

namespace cuda_on_cpu {

// The two last bits go: 2^-22, the error CUDA's guide allows ex2.approx and its like.
inline float approximate(float x) {
  return std::isfinite(x) ? __uint_as_float(__float_as_uint(x) & ~3u) : x;
}

// Subnormals become zero, as with .ftz.
inline float flushed(float x) { return std::fabs(x) < 0x1p-126f ? std::copysign(0.0f, x) : x; }

}  // namespace cuda_on_cpu

inline float __expf(float x) {
  return cuda_on_cpu::approximate(std::exp2(x * 1.4426950408889634f));
}
inline float __logf(float x) {
  return cuda_on_cpu::approximate(std::log2(x)) * 0.6931471805599453f;
}
inline float __fdividef(float a, float b) { return cuda_on_cpu::approximate(a / b); }
inline float rsqrtf(float x) { return cuda_on_cpu::approximate(1.0f / std::sqrt(x)); }
// Never one rounding with what follows, whatever the compiler may do to a * b + c.
inline float __fmul_rn(float a, float b) {
  float product = a * b;
  asm("" : "+x"(product));
  return product;
}
inline float __fadd_rn(float a, float b) {
  float sum = a + b;
  asm("" : "+x"(sum));
  return sum;
}
inline float __frcp_rn(float x) { return 1.0f / x; }
inline float __fmaf_rn(float a, float b, float c) { return std::fma(a, b, c); }
inline float __saturatef(float x) { return x > 0.0f ? (x < 1.0f ? x : 1.0f) : 0.0f; }

// Saturates, and takes NaN to 0, as the hardware does and C++ leaves undefined.
inline int __float2int_rz(float x) {
  if (x != x) return 0;
  if (x >= 0x1p31f) return INT32_MAX;
  return x < -0x1p31f ? INT32_MIN : static_cast<int>(x);
}
inline int __float2int_rn(float x) { return __float2int_rz(std::nearbyint(x)); }
inline int __float2int_rd(float x) { return __float2int_rz(std::floor(x)); }
inline float __int2float_rn(int x) { return static_cast<float>(x); }
