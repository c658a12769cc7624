#pragma once

#include <cstddef>
#include <cstdint>

#include "emulator/clock.h"

// Warp collectives: every lane named in a mask brings its part and waits; the last one works
// out what each gets. Lanes that have exited are not waited for.

namespace cuda_on_cpu {

enum class Collective { kSync, kVote, kShuffle, kLdmatrix, kMma };

constexpr unsigned kAllLanes = 0xFFFFFFFFu;

struct Lane {
  static constexpr size_t kBytes = 64;

  bool waiting = false;
  Collective kind = Collective::kSync;
  unsigned mask = 0;
  alignas(16) unsigned char in[kBytes];
  alignas(16) unsigned char out[kBytes];

  template <class T>
  const T& input() const {
    static_assert(sizeof(T) <= kBytes, "a lane's part is too large");
    return *reinterpret_cast<const T*>(in);
  }
  template <class T>
  T& output() {
    static_assert(sizeof(T) <= kBytes, "a lane's part is too large");
    return *reinterpret_cast<T*>(out);
  }
};

class Warp {
 public:
  // What the last lane to come does with the parts of the lanes `present`.
  using Finish = void (*)(Warp& warp, unsigned present);

  void meet(Collective kind, unsigned mask, const void* in, size_t in_bytes, void* out,
            size_t out_bytes, Finish finish);

  // A lane has exited: those that wait may be complete now.
  void left(int lane);

  Lane& lane(int i) { return lanes_[i]; }

 private:
  bool complete(unsigned mask, Finish finish);

  Lane lanes_[kWarpSize];
  Finish finish_[kWarpSize] = {};
};

// The collectives themselves; code outside the emulator's own files calls these.
void warp_sync(unsigned mask, const char* file, int line);
unsigned warp_vote(unsigned mask, int predicate);
// Brings `bytes` of `value` and takes those of lane `source`.
void warp_shuffle(unsigned mask, void* value, size_t bytes, int source);

}  // namespace cuda_on_cpu
