#include "emulator/shadow.h"

#include <algorithm>

namespace cuda_on_cpu {

Moment Moment::now() {
  const Thread& self = current();
  const BlockState& block = block_state();
  return {block.serial, block.barriers, self.clock.of_lane[self.lane()],
          static_cast<uint16_t>(self.rank)};
}

bool Moment::ordered() const {
  const BlockState& block = block_state();
  if (this->block < block.launch) return true;
  if (this->block != block.serial) return false;  // blocks of a launch are never ordered
  const Thread& self = current();
  if (thread == self.rank || barriers != block.barriers) return true;
  if (thread / kWarpSize != self.rank / kWarpSize) return false;
  return clock <= self.clock.of_lane[thread % kWarpSize];
}

bool Cell::reads_ordered() const {
  const BlockState& block = block_state();
  if (read_.block < block.launch) return true;
  if (read_by_blocks_) return false;
  if (!read_.ordered()) return false;
  if (read_.block != block.serial || read_.barriers != block.barriers) return true;
  if (read_by_warps_) return false;
  const Thread& self = current();
  for (int i = 0; i < kWarpSize; ++i) {
    const bool unordered = read_.clock > self.clock.of_lane[i] && i != self.lane();
    if ((read_lanes_ >> i & 1u) && unordered) return false;
  }
  return true;
}

int Cell::read() {
  const Moment me = Moment::now();
  if (read_.block == me.block && read_.barriers == me.barriers && !reads_ordered()) {
    const bool same_warp = read_.thread / kWarpSize == me.thread / kWarpSize;
    if (!same_warp) {
      read_by_warps_ = true;
      read_lanes_ = 0;
    }
  } else {
    read_by_warps_ = false;
    read_lanes_ = 0;
    const bool this_launch = read_.block >= block_state().launch;
    read_by_blocks_ = this_launch && (read_by_blocks_ || read_.block != me.block);
  }
  read_lanes_ |= 1u << me.thread % kWarpSize;
  const uint32_t latest =
      read_lanes_ & (read_lanes_ - 1) ? std::max(read_.clock, me.clock) : me.clock;
  read_ = me;
  read_.clock = latest;
  return write_.ordered() ? -1 : write_.thread;
}

int Cell::write(bool atomic) {
  int rival = -1;
  if (!write_.ordered() && !(atomic && write_was_atomic_)) rival = write_.thread;
  if (!reads_ordered()) rival = read_.thread;
  write_ = Moment::now();
  write_was_atomic_ = atomic;
  awaits_copy_ = false;
  return rival;
}

void Cell::forget_other_blocks() {
  if (write_.block != block_state().serial) write_ = {};
  if (read_.block != block_state().serial) read_ = {};
}

}  // namespace cuda_on_cpu
