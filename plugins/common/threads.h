#pragma once

#include <atomic>
#include <thread>
#include <vector>

#include "common/parallel.h"

namespace m2f {

// Threads made for one call; a pool of their own would be ONNX Runtime's business.
// `pool` points to how many, an int.
inline void run_on_threads(const Parallel& self, size_t count, Task task, void* data) {
  const int threads = *static_cast<const int*>(self.pool);
  std::atomic<size_t> next{0};
  const auto work = [&] {
    for (size_t i = next++; i < count; i = next++) task(data, i);
  };
  std::vector<std::thread> others;
  for (int i = 1; i < threads; ++i) others.emplace_back(work);
  work();
  for (std::thread& other : others) other.join();
}

}  // namespace m2f
