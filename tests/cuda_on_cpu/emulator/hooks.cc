#include "emulator/memory.h"

// Where code compiled with -fsanitize=thread,alignment calls before each access. The
// sanitizers' own libraries are not linked: these are their entry points.

using cuda_on_cpu::Access;
using cuda_on_cpu::touch;

#define CUDA_ON_CPU_HOOKS(bytes)                                        \
  extern "C" void __tsan_read##bytes(void* address) {                   \
    touch(address, bytes, Access::kRead, __builtin_return_address(0));  \
  }                                                                     \
  extern "C" void __tsan_write##bytes(void* address) {                  \
    touch(address, bytes, Access::kWrite, __builtin_return_address(0)); \
  }                                                                     \
  extern "C" void __tsan_unaligned_read##bytes(void* address) {         \
    touch(address, bytes, Access::kRead, __builtin_return_address(0));  \
  }                                                                     \
  extern "C" void __tsan_unaligned_write##bytes(void* address) {        \
    touch(address, bytes, Access::kWrite, __builtin_return_address(0)); \
  }

CUDA_ON_CPU_HOOKS(1)
CUDA_ON_CPU_HOOKS(2)
CUDA_ON_CPU_HOOKS(4)
CUDA_ON_CPU_HOOKS(8)
CUDA_ON_CPU_HOOKS(16)

extern "C" void __tsan_read_range(void* address, unsigned long bytes) {
  touch(address, bytes, Access::kRead, __builtin_return_address(0));
}
extern "C" void __tsan_write_range(void* address, unsigned long bytes) {
  touch(address, bytes, Access::kWrite, __builtin_return_address(0));
}
extern "C" void __tsan_func_entry(void*) {}
extern "C" void __tsan_func_exit() {}
extern "C" void __tsan_init() {}

// Vector loads are checked as written: the compiler may split them before the hooks above.
struct TypeMismatch {
  struct {
    const char* file;
    unsigned line;
    unsigned column;
  } place;
  const void* type;
  unsigned char log_alignment;
  unsigned char kind;
};

extern "C" void __ubsan_handle_type_mismatch_v1(const TypeMismatch* what, void* address) {
  cuda_on_cpu::report_misaligned(address, size_t{1} << what->log_alignment,
                                 __builtin_return_address(0));
}
