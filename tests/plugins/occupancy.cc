// NVIDIA's own occupancy calculator, a header of the toolkit, for one kernel:
//   major minor threads_of_multiprocessor shared_of_multiprocessor threads registers shared
// prints how many blocks are resident.

#include <cuda_occupancy.h>

#include <cstdio>
#include <cstdlib>

int main(int, char** arguments) {
  int given[7];
  for (int i = 0; i < 7; ++i) given[i] = std::atoi(arguments[i + 1]);
  cudaOccDeviceProp device;
  device.computeMajor = given[0];
  device.computeMinor = given[1];
  device.maxThreadsPerBlock = 1024;
  device.maxThreadsPerMultiprocessor = given[2];
  device.regsPerBlock = device.regsPerMultiprocessor = 65536;
  device.warpSize = 32;
  device.sharedMemPerMultiprocessor = static_cast<size_t>(given[3]);
  device.sharedMemPerBlock = size_t{48} << 10;
  device.sharedMemPerBlockOptin = device.sharedMemPerMultiprocessor - 1024;
  device.reservedSharedMemPerBlock = given[0] >= 8 ? 1024 : 0;
  device.numSms = 1;
  cudaOccFuncAttributes kernel;
  kernel.maxThreadsPerBlock = 1024;
  kernel.numRegs = given[5];
  kernel.sharedSizeBytes = static_cast<size_t>(given[6]);
  kernel.partitionedGCConfig = PARTITIONED_GC_OFF;
  kernel.maxDynamicSharedSizeBytes = 0;
  cudaOccDeviceState state;
  state.carveoutConfig = SHAREDMEM_CARVEOUT_MAX_SHARED;
  cudaOccResult result;
  const int failed =
      cudaOccMaxActiveBlocksPerMultiprocessor(&result, &device, &kernel, &state, given[4], 0);
  std::printf("%d\n", failed ? -1 : result.activeBlocksPerMultiprocessor);
  return failed;
}
