#pragma once

#include <atomic>
#include <cinttypes>

#include "common/kernels.h"
#include "common/parallel.h"
#include "common/status.h"

namespace m2f::images {

// Runs run(task, memory) for each task below `count`, with `floats` of scratch memory a thread.
template <class Run>
Status run_tasks(int64_t count, int64_t floats, const Parallel& parallel, const Run& run) {
  std::atomic<bool> has_memory{true};
  auto task = [&](int64_t i) {
    thread_local Scratch scratch;
    void* memory = scratch.get(static_cast<size_t>(floats) * sizeof(float));
    if (memory == nullptr) {
      has_memory = false;
      return;
    }
    run(i, static_cast<float*>(memory));
  };
  parallel.run(count, task);
  if (!has_memory) return error("no memory for a tile's %" PRId64 " floats", floats);
  return {};
}

}  // namespace m2f::images
