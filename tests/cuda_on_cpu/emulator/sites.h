#pragma once

// Mutation without compiling: a test names one place in the source, and the barrier or wait
// there is left out.

namespace cuda_on_cpu {

bool left_out(const char* file, int line);

}  // namespace cuda_on_cpu
