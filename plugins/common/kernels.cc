#include "common/kernels.h"

namespace m2f {

#if defined(__x86_64__)

extern const Kernels kKernels_avx512;
extern const Kernels kKernels_avx2;
extern const Kernels kKernels_sse42;

namespace {

// Asks the processor and, for the wide registers, the operating system.
bool has_avx512() {
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
         __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}

bool has_avx2() { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }

}  // namespace

const Kernels* kernels(int index) {
  const Kernels* present[3];
  int count = 0;
  if (has_avx512()) present[count++] = &kKernels_avx512;
  if (has_avx2()) present[count++] = &kKernels_avx2;
  present[count++] = &kKernels_sse42;
  return index >= 0 && index < count ? present[index] : nullptr;
}

#else

extern const Kernels kKernels_vector128;

const Kernels* kernels(int index) { return index == 0 ? &kKernels_vector128 : nullptr; }

#endif

}  // namespace m2f
