#pragma once

#include <cstdarg>
#include <cstdio>

namespace m2f {

// What went wrong, as one sentence; empty when nothing did.
struct Status {
  char text[256] = "";

  bool ok() const { return text[0] == '\0'; }
};

__attribute__((format(printf, 1, 2))) inline Status error(const char* format, ...) {
  Status status;
  va_list values;
  va_start(values, format);
  std::vsnprintf(status.text, sizeof status.text, format, values);
  va_end(values);
  return status;
}

}  // namespace m2f
