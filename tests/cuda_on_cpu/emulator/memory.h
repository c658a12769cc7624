#pragma once

#include <cstddef>

// Device and shared memory, and what may be done to them. The checked build compiles kernels
// with -fsanitize=thread,alignment, whose calls before each access end in touch() (hooks.cc). A
// plain build checks no access, but still finds what wrote over the end of a buffer.

namespace cuda_on_cpu {

enum class Access { kRead, kWrite, kAtomic };

// Checks one access by the running thread: bounds, races, reads of what nobody wrote. `code` is
// where in the kernel it happens.
void touch(const void* address, size_t bytes, Access access, const void* code);

void report_misaligned(const void* address, size_t alignment, const void* code);

bool is_shared(const void* address);

// Marks the destination of a cp.async that has not been waited for.
void expect_copy(const void* address, size_t bytes);

void* allocate(size_t bytes);  // at a multiple of 256, as cudaMalloc does; filled with NaN
bool release(void* memory);
// The host has written these bytes; false if they are not inside one buffer.
bool host_wrote(const void* memory, size_t bytes);

// Reports bytes around buffers that a kernel has changed.
void check_guards();

}  // namespace cuda_on_cpu
