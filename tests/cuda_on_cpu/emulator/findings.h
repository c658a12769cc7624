#pragma once

#include <string>

// What the emulator objects to. A run without findings is the only good one.

namespace cuda_on_cpu {

// Adds one, with the kernel, block and thread it happened in; only the first few are kept.
__attribute__((format(printf, 1, 2))) void report(const char* format, ...);

// The same, with the place in the kernel that made the access (a return address).
__attribute__((format(printf, 2, 3))) void report_at(const void* code, const char* format, ...);

// Whether no more are kept: a launch ends then, for what is this wrong may never end.
bool has_enough_findings();

// "@0x1234": where `code` lies in this library, for addr2line.
std::string offset_of(const void* code);

}  // namespace cuda_on_cpu
