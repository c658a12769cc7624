#include "emulator/warp.h"

#include <cstring>

#include "emulator/block.h"
#include "emulator/findings.h"
#include "emulator/sites.h"

namespace cuda_on_cpu {
namespace {

template <class Visit>
void for_each(unsigned lanes, Visit visit) {
  for (int i = 0; i < kWarpSize; ++i) {
    if (lanes >> i & 1u) visit(i);
  }
}

Thread* thread_of(int lane) { return thread_at(current().rank / kWarpSize * kWarpSize + lane); }

}  // namespace

void Warp::meet(Collective kind, unsigned mask, const void* in, size_t in_bytes, void* out,
                size_t out_bytes, Finish finish) {
  const int self = current().lane();
  if ((mask >> self & 1u) == 0) {
    report("lane %d calls a warp collective whose mask %08x leaves it out", self, mask);
  }
  Lane& mine = lanes_[self];
  mine.waiting = true;
  mine.kind = kind;
  mine.mask = mask;
  finish_[self] = finish;
  std::memcpy(mine.in, in, in_bytes);
  if (!complete(mask | 1u << self, finish)) wait();
  std::memcpy(out, mine.out, out_bytes);
}

bool Warp::complete(unsigned mask, Finish finish) {
  unsigned present = 0;
  const Lane* first = nullptr;
  for (int i = 0; i < kWarpSize; ++i) {
    const Thread* thread = (mask >> i & 1u) ? thread_of(i) : nullptr;
    if (thread == nullptr || thread->done) continue;
    if (!lanes_[i].waiting) return false;
    if (first == nullptr) first = &lanes_[i];
    if (lanes_[i].kind != first->kind || lanes_[i].mask != first->mask) {
      report("lanes of one warp meet in different collectives: masks %08x and %08x",
             first->mask, lanes_[i].mask);
    }
    present |= 1u << i;
  }
  finish(*this, present);
  for_each(present, [&](int i) {
    lanes_[i].waiting = false;
    wake(*thread_of(i));
  });
  return true;
}

void Warp::left(int) {
  for (int i = 0; i < kWarpSize; ++i) {
    if (lanes_[i].waiting) complete(lanes_[i].mask | 1u << i, finish_[i]);
  }
}

// __syncwarp() is the only one that orders memory.
void warp_sync(unsigned mask, const char* file, int line) {
  if (left_out(file, line)) return;
  char nothing = 0;
  const auto finish = [](Warp&, unsigned present) {
    Clock joint = {};
    for_each(present, [&](int i) { joint.learn(thread_of(i)->clock); });
    for_each(present, [&](int i) {
      thread_of(i)->clock = joint;
      ++thread_of(i)->clock.of_lane[i];
    });
  };
  current_warp().meet(Collective::kSync, mask, &nothing, 1, &nothing, 1, finish);
}

unsigned warp_vote(unsigned mask, int predicate) {
  const auto finish = [](Warp& warp, unsigned present) {
    unsigned ballot = 0;
    for_each(present, [&](int i) {
      ballot |= static_cast<unsigned>(warp.lane(i).input<int>() != 0) << i;
    });
    for_each(present, [&](int i) { warp.lane(i).output<unsigned>() = ballot; });
  };
  unsigned ballot;
  current_warp().meet(Collective::kVote, mask, &predicate, sizeof predicate, &ballot,
                      sizeof ballot, finish);
  return ballot;
}

void warp_shuffle(unsigned mask, void* value, size_t bytes, int source) {
  struct Part {
    int source;
    unsigned char value[16];
  };
  const auto finish = [](Warp& warp, unsigned present) {
    for_each(present, [&](int i) {
      auto& out = warp.lane(i).output<Part>();
      const int from = warp.lane(i).input<Part>().source;
      std::memset(out.value, 0xFF, sizeof out.value);
      if ((present >> from & 1u) == 0) {
        report("shuffle: lane %d reads lane %d, which takes no part", i, from);
      } else {
        std::memcpy(out.value, warp.lane(from).input<Part>().value, sizeof out.value);
      }
    });
  };
  Part part = {source, {}};
  std::memcpy(part.value, value, bytes);
  Part got;
  current_warp().meet(Collective::kShuffle, mask, &part, sizeof part, &got, sizeof got, finish);
  std::memcpy(value, got.value, bytes);
}

}  // namespace cuda_on_cpu
