#pragma once

#include <cstddef>

#include "emulator/types.h"
#include "emulator/warp.h"

// What device functions need of the emulator; kernels include no more than this.

namespace cuda_on_cpu {

// __syncthreads(), with an "or", "and" and count of a predicate over the threads.
struct Vote {
  int any;
  int all;
  int count;
};
Vote barrier(int predicate, const char* file, int line);

void* dynamic_shared();

// An access by atomics, which race with others but not among themselves.
void touch_atomic(const void* address, size_t bytes, const void* code);
void load_unchecked(void* to, const void* from, size_t bytes);

}  // namespace cuda_on_cpu
