#include <unordered_map>

#include "cuda_runtime.h"
#include "emulator/block.h"
#include "emulator/findings.h"
#include "emulator/memory.h"

namespace cuda_on_cpu {
namespace {

// Limits of every architecture this project builds for.
constexpr unsigned kThreadsPerBlock = 1024;
constexpr unsigned kGridSide = 65535;                // y and z
constexpr size_t kDynamicShared = size_t{48} << 10;  // without cudaFuncSetAttribute

cudaError_t last_error = cudaSuccess;

cudaError_t fail(cudaError_t error) { return last_error = error; }

std::unordered_map<const void*, size_t>& allowed() {
  static auto* map = new std::unordered_map<const void*, size_t>;
  return *map;
}

}  // namespace

cudaError_t launch(const void* kernel, const cudaLaunchConfig_t& config,
                   void (*invoke)(const void* arguments), const void* arguments, size_t bytes) {
  const dim3 grid = config.gridDim;
  const dim3 block = config.blockDim;
  const uint64_t threads = uint64_t{block.x} * block.y * block.z;
  const bool empty = threads == 0 || grid.x == 0 || grid.y == 0 || grid.z == 0;
  if (empty || threads > kThreadsPerBlock || grid.x > INT32_MAX || grid.y > kGridSide ||
      grid.z > kGridSide) {
    return fail(cudaErrorInvalidConfiguration);
  }
  const auto found = allowed().find(kernel);
  const size_t most = found == allowed().end() ? kDynamicShared : found->second;
  if (config.dynamicSmemBytes > most) return fail(cudaErrorInvalidValue);
  run({kernel, grid, block, config.dynamicSmemBytes, invoke, arguments, bytes});
  return cudaSuccess;
}

cudaError_t allow_dynamic_shared(const void* kernel, int bytes) {
  allowed()[kernel] = std::max(static_cast<size_t>(bytes), kDynamicShared);
  return cudaSuccess;
}

}  // namespace cuda_on_cpu

using cuda_on_cpu::fail;

extern "C" {

cudaError_t cudaMalloc(void** memory, size_t bytes) {
  *memory = cuda_on_cpu::allocate(bytes);
  return *memory ? cudaSuccess : fail(cudaErrorMemoryAllocation);
}

cudaError_t cudaFree(void* memory) {
  return memory == nullptr || cuda_on_cpu::release(memory) ? cudaSuccess
                                                           : fail(cudaErrorInvalidValue);
}

cudaError_t cudaMemcpy(void* to, const void* from, size_t bytes, cudaMemcpyKind kind) {
  if (kind != cudaMemcpyDeviceToHost && !cuda_on_cpu::host_wrote(to, bytes)) {
    return fail(cudaErrorInvalidValue);
  }
  std::memcpy(to, from, bytes);
  return cudaSuccess;
}

cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind kind,
                            cudaStream_t) {
  return cudaMemcpy(to, from, bytes, kind);
}

cudaError_t cudaMemsetAsync(void* memory, int value, size_t bytes, cudaStream_t) {
  if (!cuda_on_cpu::host_wrote(memory, bytes)) return fail(cudaErrorInvalidValue);
  std::memset(memory, value, bytes);
  return cudaSuccess;
}

cudaError_t cudaGetDevice(int* device) {
  *device = 0;
  return cudaSuccess;
}

// An Ampere GPU, the oldest whose instructions are all emulated.
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr, int) {
  *value = 8;
  return cudaSuccess;
}

cudaError_t cudaGetLastError() { return std::exchange(cuda_on_cpu::last_error, cudaSuccess); }

cudaError_t cudaPeekAtLastError() { return cuda_on_cpu::last_error; }

const char* cudaGetErrorString(cudaError_t error) {
  return error == cudaSuccess ? "no error" : "invalid argument or configuration";
}

}  // extern "C"
