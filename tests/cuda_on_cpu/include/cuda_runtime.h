#pragma once

// CUDA's language and runtime, as far as this project's kernels use them, for g++. The folder
// of this header comes before the toolkit's; nothing of the toolkit is needed.

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <tuple>
#include <utility>

#include "emulator/intrinsics.h"
#include "emulator/types.h"

#define __device__
#define __host__
#define __global__
#define __shared__ static  // one block runs at a time
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __grid_constant__
#define __align__(bytes) alignas(bytes)

enum cudaError_t {
  cudaSuccess = 0,
  cudaErrorInvalidValue = 1,
  cudaErrorMemoryAllocation = 2,
  cudaErrorInvalidConfiguration = 9
};
enum cudaMemcpyKind {
  cudaMemcpyHostToDevice = 1,
  cudaMemcpyDeviceToHost = 2,
  cudaMemcpyDeviceToDevice = 3
};
enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize = 8 };
enum cudaDeviceAttr { cudaDevAttrComputeCapabilityMajor = 75 };
using cudaStream_t = struct CUstream_st*;
using cudaEvent_t = struct CUevent_st*;  // TensorRT's headers name it
struct cudaLaunchAttribute {};

struct cudaLaunchConfig_t {
  dim3 gridDim;
  dim3 blockDim;
  size_t dynamicSmemBytes = 0;
  cudaStream_t stream = nullptr;
  cudaLaunchAttribute* attrs = nullptr;
  unsigned numAttrs = 0;
};

#pragma GCC visibility push(default)
extern "C" {
cudaError_t cudaMalloc(void** memory, size_t bytes);
cudaError_t cudaFree(void* memory);
cudaError_t cudaMemcpy(void* to, const void* from, size_t bytes, cudaMemcpyKind kind);
cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind kind,
                            cudaStream_t stream);
cudaError_t cudaMemsetAsync(void* memory, int value, size_t bytes, cudaStream_t stream);
cudaError_t cudaGetDevice(int* device);
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device);
cudaError_t cudaGetLastError();
cudaError_t cudaPeekAtLastError();
const char* cudaGetErrorString(cudaError_t error);
}
#pragma GCC visibility pop

namespace cuda_on_cpu {
cudaError_t launch(const void* kernel, const cudaLaunchConfig_t& config,
                   void (*invoke)(const void* arguments), const void* arguments, size_t bytes);
cudaError_t allow_dynamic_shared(const void* kernel, int bytes);
}  // namespace cuda_on_cpu

// Arguments are copied at the call, as a launch does.
template <class... Parameters, class... Arguments>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(Parameters...),
                               Arguments&&... arguments) {
  using Call = std::tuple<void (*)(Parameters...), std::decay_t<Parameters>...>;
  const Call call(kernel, std::forward<Arguments>(arguments)...);
  const auto invoke = [](const void* stored) {
    std::apply([](auto f, const auto&... values) { f(values...); },
               *static_cast<const Call*>(stored));
  };
  return cuda_on_cpu::launch(reinterpret_cast<const void*>(kernel), *config, invoke, &call,
                             sizeof call);
}

template <class Kernel>
cudaError_t cudaFuncSetAttribute(Kernel* kernel, cudaFuncAttribute, int bytes) {
  return cuda_on_cpu::allow_dynamic_shared(reinterpret_cast<const void*>(kernel), bytes);
}
