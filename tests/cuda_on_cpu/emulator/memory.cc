#include "emulator/memory.h"

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <list>

#include "emulator/block.h"
#include "emulator/findings.h"
#include "emulator/shadow.h"

// Limits of this library in memory, from the linker: statics of kernels lie in its .bss.
extern "C" {
extern char __ehdr_start __attribute__((visibility("hidden")));
extern char __bss_start __attribute__((visibility("hidden")));
extern char _end __attribute__((visibility("hidden")));
}

namespace cuda_on_cpu {
namespace {

#if defined(CUDA_ON_CPU_CHECKED)
constexpr bool kChecked = true;
#else
constexpr bool kChecked = false;
#endif

constexpr size_t kAlignment = 256;
constexpr size_t kGuard = 256;  // bytes before and after each buffer that nobody may write
constexpr unsigned char kGuardByte = 0xA5;

// Compares as numbers: most addresses are of other objects.
bool lies_in(const void* address, const void* begin, size_t bytes) {
  return reinterpret_cast<uintptr_t>(address) - reinterpret_cast<uintptr_t>(begin) < bytes;
}

struct Region {
  char* begin;
  size_t bytes;
  bool shared;
  Shadow shadow;

  bool holds(const void* address) const { return lies_in(address, begin, bytes); }
  Cell& cell(const void* address) {
    if (shadow.size() < bytes) shadow.resize(bytes);
    return shadow[static_cast<size_t>(static_cast<const char*>(address) - begin)];
  }
};

struct Memory {
  std::list<Region> buffers;
  Region dynamic_shared{nullptr, 0, true, {}};
  Region static_shared{&__bss_start, static_cast<size_t>(&_end - &__bss_start), true, {}};
};

Memory& memory() {
  static Memory* one = new Memory;
  return *one;
}

Region* buffer_of(const void* address) {
  for (Region& region : memory().buffers) {
    if (region.holds(address)) return &region;
  }
  return nullptr;
}

Region* shared_of(const void* address) {
  Memory& m = memory();
  const BlockState& block = block_state();
  m.dynamic_shared.begin = block.dynamic_shared;
  m.dynamic_shared.bytes = block.dynamic_bytes;
  if (m.dynamic_shared.holds(address)) return &m.dynamic_shared;
  return m.static_shared.holds(address) ? &m.static_shared : nullptr;
}

// What a thread keeps on its stack, a kernel's arguments, and constants.
bool is_private(const void* address) {
  const Launch& launch = *current_launch();
  const size_t constants = static_cast<size_t>(&__bss_start - &__ehdr_start);
  return current().fiber.holds(address) ||
         lies_in(address, launch.arguments, launch.argument_bytes) ||
         lies_in(address, &__ehdr_start, constants);
}

const char* name_of(Access access) {
  if (access == Access::kAtomic) return "atomic";
  return access == Access::kRead ? "read" : "write";
}

// Whether something is wrong with this byte; says so if it is the first of the access.
bool check_byte(Region& region, const char* address, Access access, const void* code,
                bool silent) {
  Cell& cell = region.cell(address);
  if (region.shared) cell.forget_other_blocks();
  const char* space = region.shared ? "shared" : "global";
  const size_t offset = static_cast<size_t>(address - region.begin);
  const char* problem = nullptr;
  if (access != Access::kWrite && cell.awaits_copy()) {
    problem = "comes before its cp.async was waited for";
  } else if (access != Access::kWrite && !cell.written()) {
    problem = "is of what nobody has written";
  }
  if (problem != nullptr && !silent) {
    report_at(code, "%s of %s byte %zu %s", name_of(access), space, offset, problem);
  }
  const int rival =
      access == Access::kRead ? cell.read() : cell.write(access == Access::kAtomic);
  if (rival >= 0 && !silent) {
    report_at(code, "race: %s of %s byte %zu is not ordered with thread %d", name_of(access),
              space, offset, rival);
  }
  return problem != nullptr || rival >= 0;
}

bool intact(const char* guard) {
  return std::all_of(guard, guard + kGuard,
                     [](char byte) { return static_cast<unsigned char>(byte) == kGuardByte; });
}

}  // namespace

void touch(const void* address, size_t bytes, Access access, const void* code) {
  if (!kChecked || !in_kernel() || is_private(address)) return;
  Region* region = buffer_of(address);
  if (region == nullptr) region = shared_of(address);
  const char* last = static_cast<const char*>(address) + bytes - 1;
  if (region == nullptr || !region->holds(last)) {
    report_at(code, "out of bounds: %s of %zu bytes at %p, in no buffer", name_of(access),
              bytes, address);
    return;
  }
  bool wrong = false;
  for (const char* byte = static_cast<const char*>(address); byte <= last; ++byte) {
    wrong |= check_byte(*region, byte, access, code, wrong);
  }
}

void touch_atomic(const void* address, size_t bytes, const void* code) {
  touch(address, bytes, Access::kAtomic, code);
}

void load_unchecked(void* to, const void* from, size_t bytes) { std::memcpy(to, from, bytes); }

void report_misaligned(const void* address, size_t alignment, const void* code) {
  if (!in_kernel()) return;
  report_at(code, "%p is misaligned: wants a multiple of %zu", address, alignment);
}

bool is_shared(const void* address) { return shared_of(address) != nullptr; }

void expect_copy(const void* address, size_t bytes) {
  Region* region = kChecked ? shared_of(address) : nullptr;
  for (size_t i = 0; region != nullptr && i < bytes; ++i) {
    const char* byte = static_cast<const char*>(address) + i;
    if (region->holds(byte)) region->cell(byte).expect_copy();
  }
}

void* allocate(size_t bytes) {
  const size_t whole = (bytes + 2 * kGuard + kAlignment - 1) / kAlignment * kAlignment;
  char* start = static_cast<char*>(std::aligned_alloc(kAlignment, whole));
  if (start == nullptr) return nullptr;
  std::memset(start, kGuardByte, whole);
  std::memset(start + kGuard, 0xFF, bytes);
  memory().buffers.push_back({start + kGuard, bytes, false, {}});
  return start + kGuard;
}

bool release(void* address) {
  auto& buffers = memory().buffers;
  const auto found = std::find_if(buffers.begin(), buffers.end(), [&](const Region& region) {
    return region.begin == address;
  });
  if (found == buffers.end()) return false;
  std::free(found->begin - kGuard);
  buffers.erase(found);
  return true;
}

bool host_wrote(const void* address, size_t bytes) {
  if (bytes == 0) return true;
  Region* region = buffer_of(address);
  const char* begin = static_cast<const char*>(address);
  if (region == nullptr || !region->holds(begin + bytes - 1)) return false;
  for (size_t i = 0; kChecked && i < bytes; ++i) region->cell(begin + i).set_by_host();
  return true;
}

void check_guards() {
  for (const Region& region : memory().buffers) {
    if (!intact(region.begin - kGuard)) {
      report("wrote before a buffer of %zu bytes", region.bytes);
    }
    if (!intact(region.begin + region.bytes)) {
      report("wrote past the end of a buffer of %zu bytes", region.bytes);
    }
  }
}

}  // namespace cuda_on_cpu
