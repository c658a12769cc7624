#pragma once

#include <cmath>

#include "fused/quantize/kernel.h"

// The op in plain loops: the specification in code. Slow on purpose; cpu_simd.h is the fast
// one.

namespace m2f::quantize {

// x and output [count].
inline void forward_plain(fused::Activation activation, const Grid& grid, int64_t count,
                          const float* x, uint8_t* output) {
  for (int64_t i = 0; i < count; ++i) {
    const float steps = fused::activate_plainly(activation, x[i]) / grid.scale;
    // Rounds to even, as every process does that has not asked for another mode.
    const float held = at_most(at_least(std::nearbyint(steps), grid.low), grid.high);
    output[i] = static_cast<uint8_t>(static_cast<int32_t>(held) + grid.zero);
  }
}

}  // namespace m2f::quantize
