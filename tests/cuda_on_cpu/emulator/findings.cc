#include "emulator/findings.h"

#include <dlfcn.h>

#include <cstdarg>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <string>
#include <vector>

#include "emulator/block.h"

namespace cuda_on_cpu {
namespace {

constexpr size_t kKept = 8;

std::vector<std::string>& findings() {
  static std::vector<std::string> list;
  return list;
}

void add(const void* code, const char* format, va_list values) {
  if (has_enough_findings()) return;
  char what[512];
  std::vsnprintf(what, sizeof what, format, values);
  findings().push_back(here() + ": " + what + (code ? ' ' + offset_of(code) : ""));
}

}  // namespace

std::string offset_of(const void* code) {
  Dl_info info;
  if (dladdr(code, &info) == 0) return "@?";
  char text[32];
  const auto offset = static_cast<const char*>(code) - static_cast<char*>(info.dli_fbase);
  std::snprintf(text, sizeof text, "@0x%zx", static_cast<size_t>(offset));
  return text;
}

bool has_enough_findings() { return findings().size() >= kKept; }

void report(const char* format, ...) {
  va_list values;
  va_start(values, format);
  add(nullptr, format, values);
  va_end(values);
}

void report_at(const void* code, const char* format, ...) {
  va_list values;
  va_start(values, format);
  add(code, format, values);
  va_end(values);
}

// Moves all findings, one a line, into `text`.
extern "C" __attribute__((visibility("default"))) void cuda_on_cpu_take_findings(char* text,
                                                                                 size_t size) {
  std::string all;
  for (const std::string& finding : findings()) all += finding + '\n';
  findings().clear();
  std::snprintf(text, size, "%s", all.c_str());
}

}  // namespace cuda_on_cpu
