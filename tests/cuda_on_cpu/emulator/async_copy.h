#pragma once

#include <vector>

// cp.async: copies from global to shared memory that are only there after a wait. Until then
// the destination holds NaN, so that a forgotten wait shows.

namespace cuda_on_cpu {

class AsyncCopies {
 public:
  // Copies `source_bytes` of `bytes`, and zeros for the rest.
  void add(void* to, const void* from, int bytes, int source_bytes, const void* code);
  void commit() { ++group_; }
  // Lands all but the `pending` newest groups.
  void wait(int pending, const void* code);

  bool empty() const { return copies_.empty(); }
  void clear() {
    copies_.clear();
    group_ = 0;
  }

 private:
  struct Copy {
    char* to;
    const char* from;
    int bytes;
    int source_bytes;
    int group;
  };
  std::vector<Copy> copies_;
  int group_ = 0;
};

}  // namespace cuda_on_cpu
