#include "emulator/block.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>

#include "emulator/findings.h"
#include "emulator/memory.h"
#include "emulator/sites.h"

// In .data by their initial values: memory.h takes this library's .bss for shared memory.
uint3 threadIdx = {~0u, ~0u, ~0u};
uint3 blockIdx = {~0u, ~0u, ~0u};
dim3 blockDim = {~0u, ~0u, ~0u};
dim3 gridDim = {~0u, ~0u, ~0u};

namespace cuda_on_cpu {
namespace {

// __syncthreads() of the block that runs.
struct Barrier {
  int arrived;
  const char* file;  // where those who wait do so
  int line;
  Vote gathering;
  Vote result;
};

struct Machine {
  std::vector<std::unique_ptr<Thread>> threads;  // kept from launch to launch
  std::vector<Warp> warps;
  const Launch* launch = nullptr;
  Thread* running = nullptr;
  int size = 0;   // threads of the block
  int alive = 0;  // those that have not exited
  Barrier barrier = {};
  BlockState state = {};
  std::unique_ptr<char, decltype(&std::free)> shared{nullptr, &std::free};
  size_t shared_capacity = 0;
  Order order = Order::kForward;
  std::minstd_rand random{1};
};

// On the heap, and never destroyed: .bss is shared memory, and exit order does not matter.
Machine& machine() {
  static Machine* one = new Machine;
  return *one;
}

template <class Sequence>
void arrange(Sequence& items) {
  Machine& m = machine();
  if (m.order == Order::kReverse) std::reverse(items.begin(), items.end());
  if (m.order == Order::kShuffled) std::shuffle(items.begin(), items.end(), m.random);
}

// Lets everybody pass once all that live have come. Exited threads no longer take part.
bool release_barrier() {
  Machine& m = machine();
  Barrier& b = m.barrier;
  if (b.arrived == 0 || b.arrived < m.alive) return false;
  if (m.alive != m.size) {
    report("barrier at line %d passed by %d of %d threads; the others have exited", b.line,
           m.alive, m.size);
  }
  b.result = b.gathering;
  b.arrived = 0;
  ++m.state.barriers;
  for (int i = 0; i < m.size; ++i) {
    // A thread that waits for its warp instead was not counted, and stays where it is.
    Thread& thread = *m.threads[i];
    if (!thread.done && !m.warps[i / kWarpSize].lane(thread.lane()).waiting) wake(thread);
  }
  return true;
}

void thread_main() {
  Machine& m = machine();
  m.launch->invoke(m.launch->arguments);
  Thread& self = current();
  if (!self.copies.empty()) report("exits with cp.async copies it never waited for");
  self.done = true;
  --m.alive;
  current_warp().left(self.lane());
  self.fiber.pause();
  std::abort();  // a finished thread is never resumed
}

void start_block(uint3 index) {
  Machine& m = machine();
  blockIdx = index;
  ++m.state.serial;
  m.state.barriers = 0;
  m.alive = m.size;
  m.barrier = {};
  m.warps.assign((m.size + kWarpSize - 1) / kWarpSize, Warp{});
  // NaN in every floating-point type: what nobody wrote shows in the result.
  if (m.state.dynamic_bytes) std::memset(m.shared.get(), 0xFF, m.state.dynamic_bytes);
  const dim3 size = m.launch->block;
  for (int i = 0; i < m.size; ++i) {
    Thread& thread = *m.threads[i];
    const unsigned rank = static_cast<unsigned>(i);
    thread.rank = i;
    thread.index = {rank % size.x, rank / size.x % size.y, rank / (size.x * size.y)};
    thread.done = thread.waiting = false;
    thread.clock.start(thread.lane());
    thread.copies.clear();
    thread.fiber.prepare(&thread_main);
  }
}

void run_block(uint3 index) {
  Machine& m = machine();
  start_block(index);
  std::vector<Thread*> turns;
  for (int i = 0; i < m.size; ++i) turns.push_back(m.threads[i].get());
  arrange(turns);
  while (m.alive > 0 && !has_enough_findings()) {
    bool moved = false;
    for (Thread* thread : turns) {
      if (thread->done || thread->waiting) continue;
      moved = true;
      m.running = thread;
      threadIdx = thread->index;
      thread->fiber.resume();
    }
    m.running = nullptr;
    if (!moved && !release_barrier()) {
      report("deadlock: of %d live threads %d wait at __syncthreads, the rest for their warp",
             m.alive, m.barrier.arrived);
      break;
    }
  }
}

void make_room(const Launch& launch) {
  Machine& m = machine();
  m.size = static_cast<int>(launch.block.x * launch.block.y * launch.block.z);
  while (m.threads.size() < static_cast<size_t>(m.size)) {
    m.threads.push_back(std::make_unique<Thread>());
  }
  if (launch.dynamic_bytes > m.shared_capacity) {
    m.shared_capacity = (launch.dynamic_bytes + 1023) / 1024 * 1024;
    m.shared.reset(static_cast<char*>(std::aligned_alloc(1024, m.shared_capacity)));
  }
  m.state.dynamic_shared = m.shared.get();
  m.state.dynamic_bytes = launch.dynamic_bytes;
}

}  // namespace

void run(const Launch& launch) {
  Machine& m = machine();
  make_room(launch);
  m.launch = &launch;
  m.state.launch = m.state.serial + 1;
  gridDim = launch.grid;
  blockDim = launch.block;
  std::vector<uint3> blocks;
  for (unsigned z = 0; z < launch.grid.z; ++z) {
    for (unsigned y = 0; y < launch.grid.y; ++y) {
      for (unsigned x = 0; x < launch.grid.x; ++x) blocks.push_back({x, y, z});
    }
  }
  arrange(blocks);
  for (const uint3& index : blocks) {
    if (!has_enough_findings()) run_block(index);
  }
  check_guards();
  m.launch = nullptr;
}

Thread& current() { return *machine().running; }

Warp& current_warp() { return machine().warps[current().rank / kWarpSize]; }

const Launch* current_launch() { return machine().launch; }

bool in_kernel() { return machine().running != nullptr; }

const BlockState& block_state() { return machine().state; }

Thread* thread_at(int rank) {
  Machine& m = machine();
  return rank < m.size ? m.threads[rank].get() : nullptr;
}

void wait() {
  Thread& self = current();
  self.waiting = true;
  self.fiber.pause();
}

void wake(Thread& thread) { thread.waiting = false; }

Vote barrier(int predicate, const char* file, int line) {
  const int truth = predicate != 0;
  if (left_out(file, line)) return {truth, truth, truth};
  Barrier& b = machine().barrier;
  if (b.arrived == 0) {
    b.file = file;
    b.line = line;
    b.gathering = {0, 1, 0};
  } else if (b.line != line || std::strcmp(b.file, file) != 0) {
    report("divergent barrier: at line %d, while others wait at line %d", line, b.line);
  }
  b.gathering.any |= truth;
  b.gathering.all &= truth;
  b.gathering.count += truth;
  ++b.arrived;
  if (!release_barrier()) wait();
  return b.result;
}

void* dynamic_shared() { return machine().state.dynamic_shared; }

std::string here() {
  const Machine& m = machine();
  if (m.launch == nullptr) return "host";
  std::string text = offset_of(m.launch->kernel);
  char place[80];
  std::snprintf(place, sizeof place, " block (%u,%u,%u)", blockIdx.x, blockIdx.y, blockIdx.z);
  text += place;
  if (m.running) text += " thread " + std::to_string(m.running->rank);
  return text;
}

extern "C" __attribute__((visibility("default"))) void cuda_on_cpu_set_order(int order) {
  machine().order = static_cast<Order>(order);
}

}  // namespace cuda_on_cpu
