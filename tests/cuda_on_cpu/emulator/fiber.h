#pragma once

#include <cstddef>

// A stack of its own, on which a function runs until it gives way, and is taken up again later.
// Written for x86-64; another architecture needs its own switch_stacks().

namespace cuda_on_cpu {

class Fiber {
 public:
  Fiber();
  Fiber(const Fiber&) = delete;
  Fiber& operator=(const Fiber&) = delete;
  ~Fiber();

  // The next resume() calls `entry`, which must not return: it ends with a last pause().
  void prepare(void (*entry)());

  // From outside: runs the fiber until it pauses. From inside: back to who resumed it.
  void resume();
  void pause();

  bool holds(const void* address) const;

 private:
  static constexpr size_t kStackBytes = size_t{128} << 10;

  char* stack_;
  void* inside_ = nullptr;   // stack pointer of the fiber while it is paused
  void* outside_ = nullptr;  // and of whoever resumed it while it runs
};

}  // namespace cuda_on_cpu
