#pragma once

#include <cstdint>
#include <cstring>

// What a thread knows of the other lanes of its warp: a vector clock. An access by lane i at
// time t comes before whatever a thread does whose clock says at least t for lane i.

namespace cuda_on_cpu {

constexpr int kWarpSize = 32;

struct Clock {
  uint32_t of_lane[kWarpSize];

  void start(int lane) {
    std::memset(of_lane, 0, sizeof of_lane);
    of_lane[lane] = 1;
  }
  void learn(const Clock& other) {
    for (int i = 0; i < kWarpSize; ++i) {
      if (other.of_lane[i] > of_lane[i]) of_lane[i] = other.of_lane[i];
    }
  }
};

}  // namespace cuda_on_cpu
