#include "emulator/sites.h"

#include <cstring>
#include <string>

namespace cuda_on_cpu {
namespace {

struct Site {
  std::string file;
  int line = 0;  // 0: nothing is left out
};

Site& chosen() {
  static Site* one = new Site;
  return *one;
}

}  // namespace

bool left_out(const char* file, int line) {
  const Site& site = chosen();
  if (line != site.line) return false;
  const size_t length = std::strlen(file);
  return length >= site.file.size() && site.file == file + length - site.file.size();
}

// `file` is the end of a path; line 0 puts everything back.
extern "C" __attribute__((visibility("default"))) void cuda_on_cpu_leave_out(const char* file,
                                                                             int line) {
  chosen() = {file, line};
}

}  // namespace cuda_on_cpu
