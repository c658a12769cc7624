#include "emulator/async_copy.h"

#include <cstdint>
#include <cstring>

#include "emulator/findings.h"
#include "emulator/memory.h"

namespace cuda_on_cpu {

void AsyncCopies::add(void* to, const void* from, int bytes, int source_bytes,
                      const void* code) {
  const auto misaligned = [&](const void* p) {
    return reinterpret_cast<uintptr_t>(p) % static_cast<unsigned>(bytes) != 0;
  };
  if (misaligned(to) || (source_bytes > 0 && misaligned(from))) {
    report_at(code, "cp.async of %d bytes is misaligned: to %p from %p", bytes, to, from);
  }
  if (!is_shared(to)) report_at(code, "cp.async to %p, which is not shared memory", to);
  touch(to, bytes, Access::kWrite, code);  // from now on it may change at any time
  if (source_bytes > 0) touch(from, source_bytes, Access::kRead, code);
  std::memset(to, 0xFF, static_cast<size_t>(bytes));
  expect_copy(to, bytes);
  copies_.push_back(
      {static_cast<char*>(to), static_cast<const char*>(from), bytes, source_bytes, group_});
}

void AsyncCopies::wait(int pending, const void* code) {
  size_t landed = 0;
  for (; landed < copies_.size() && copies_[landed].group < group_ - pending; ++landed) {
    const Copy& copy = copies_[landed];
    touch(copy.to, copy.bytes, Access::kWrite, code);
    std::memset(copy.to, 0, static_cast<size_t>(copy.bytes));
    std::memcpy(copy.to, copy.from, static_cast<size_t>(copy.source_bytes));
  }
  copies_.erase(copies_.begin(), copies_.begin() + static_cast<std::ptrdiff_t>(landed));
}

}  // namespace cuda_on_cpu
