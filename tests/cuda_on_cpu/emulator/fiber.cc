#include "emulator/fiber.h"

#include <sys/mman.h>

#include <cstdint>
#include <new>

#if !defined(__x86_64__)
#error "cuda_on_cpu switches stacks on x86-64 only"
#endif

namespace cuda_on_cpu {
namespace {

// Saves the registers that a call must preserve on this stack, and takes them from the other.
__attribute__((naked, noinline)) void switch_stacks(void** /*save*/, void* /*to*/) {
  asm volatile(
      "pushq %rbp; pushq %rbx; pushq %r12; pushq %r13; pushq %r14; pushq %r15;"
      "movq %rsp, (%rdi); movq %rsi, %rsp;"
      "popq %r15; popq %r14; popq %r13; popq %r12; popq %rbx; popq %rbp; ret");
}

}  // namespace

Fiber::Fiber() {
  void* memory = mmap(nullptr, kStackBytes, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) throw std::bad_alloc();
  stack_ = static_cast<char*>(memory);
}

Fiber::~Fiber() { munmap(stack_, kStackBytes); }

void Fiber::prepare(void (*entry)()) {
  // As if switch_stacks() had been called just before the first instruction of `entry`: the
  // alignment is the one that the ABI wants after a call.
  constexpr int kSavedRegisters = 6;
  void** top = reinterpret_cast<void**>(stack_ + kStackBytes - 64);
  *--top = nullptr;  // nowhere to return to
  *--top = reinterpret_cast<void*>(entry);
  for (int i = 0; i < kSavedRegisters; ++i) *--top = nullptr;
  inside_ = top;
}

void Fiber::resume() { switch_stacks(&outside_, inside_); }

void Fiber::pause() { switch_stacks(&inside_, outside_); }

bool Fiber::holds(const void* address) const {
  const auto place = reinterpret_cast<uintptr_t>(address);
  const auto begin = reinterpret_cast<uintptr_t>(stack_);
  return place >= begin && place < begin + kStackBytes;
}

}  // namespace cuda_on_cpu
