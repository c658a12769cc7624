#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "emulator/async_copy.h"
#include "emulator/block_api.h"
#include "emulator/clock.h"
#include "emulator/fiber.h"
#include "emulator/types.h"
#include "emulator/warp.h"

// One thread block at a time: its threads are fibers, which give way at barriers and warp
// collectives only. So a kernel that forgets a barrier sees one of the orders below, and the
// checks of memory.h, which know what is ordered, tell what it forgot.

namespace cuda_on_cpu {

enum class Order { kForward, kReverse, kShuffled };  // of blocks, and of threads in a block

struct Thread {
  Fiber fiber;
  uint3 index;
  int rank;  // in the block
  bool done;
  bool waiting;  // for a barrier or for other lanes
  Clock clock;
  AsyncCopies copies;

  int lane() const { return rank % kWarpSize; }
};

struct Launch {
  const void* kernel;
  dim3 grid;
  dim3 block;
  size_t dynamic_bytes;
  void (*invoke)(const void* arguments);  // calls the kernel
  const void* arguments;
  size_t argument_bytes;
};

// Runs all blocks, one after the other.
void run(const Launch& launch);

// The thread that runs; only valid inside a kernel.
Thread& current();
Warp& current_warp();
bool in_kernel();
const Launch* current_launch();

// What memory.h wants to know of the block that runs.
struct BlockState {
  uint32_t serial;       // counts blocks, and never repeats
  uint32_t launch;       // serial of the first block of this launch
  uint32_t barriers;     // passed so far
  char* dynamic_shared;  // its dynamic shared memory
  size_t dynamic_bytes;
};
const BlockState& block_state();

// Lets the other threads run until somebody wakes this one.
void wait();
void wake(Thread& thread);
Thread* thread_at(int rank);  // null beyond the block

// "@0x1234 block (0,0,0) thread 3", for messages: the kernel, as an offset in this library.
std::string here();

}  // namespace cuda_on_cpu
