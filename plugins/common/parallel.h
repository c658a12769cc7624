#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>

namespace m2f {

using Task = void (*)(void* data, size_t index);

// Somebody else's threads: ONNX Runtime's pool, a test's own, or none. Calls task(data, i) once
// for each i below count, in any order, and returns when all are done. Must not throw.
struct Parallel {
  void (*for_each)(const Parallel& self, size_t count, Task task, void* data);
  void* pool;

  template <class Function>
  void run(int64_t count, Function& function) const {
    if (count <= 0) return;
    const Task call = [](void* data, size_t index) {
      (*static_cast<Function*>(data))(static_cast<int64_t>(index));
    };
    for_each(*this, static_cast<size_t>(count), call, &function);
  }
};

inline void run_serially(const Parallel&, size_t count, Task task, void* data) {
  for (size_t i = 0; i < count; ++i) task(data, i);
}

// Memory that a thread keeps from call to call, so that a warm call allocates nothing.
// Contents are undefined; aligned to a cache line; null where there is no memory.
class Scratch {
 public:
  void* get(size_t bytes) {
    if (bytes > size_) {
      buffer_.reset();
      const size_t rounded = (bytes + 63) / 64 * 64;
      buffer_.reset(std::aligned_alloc(64, rounded));
      size_ = buffer_ ? rounded : 0;
    }
    return buffer_.get();
  }

 private:
  struct Free {
    void operator()(void* memory) const { std::free(memory); }
  };
  std::unique_ptr<void, Free> buffer_;
  size_t size_ = 0;
};

}  // namespace m2f
