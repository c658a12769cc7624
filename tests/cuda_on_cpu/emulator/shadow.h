#pragma once

#include <cstdint>
#include <vector>

#include "emulator/block.h"

// What is remembered of every byte: its last write and its last reads, each with a time.

namespace cuda_on_cpu {

// A thread, and when: the block, how many barriers it had passed, and its own clock.
struct Moment {
  uint32_t block = 0;  // serial; 0 is before everything
  uint32_t barriers = 0;
  uint32_t clock = 0;
  uint16_t thread = 0;

  static Moment now();
  // Does this come before whatever the running thread does now?
  bool ordered() const;
};

class Cell {
 public:
  // Both return the thread that this access races with, or -1.
  int read();
  int write(bool atomic);

  // Has the host or a kernel written this byte?
  bool written() const { return set_by_host_ || write_.block != 0; }
  bool awaits_copy() const { return awaits_copy_; }

  // Shared memory has no history across blocks.
  void forget_other_blocks();
  void expect_copy() { awaits_copy_ = true; }
  void set_by_host() { set_by_host_ = true; }

 private:
  bool reads_ordered() const;

  Moment write_;
  Moment read_;                  // the latest of them
  uint32_t read_lanes_ = 0;      // lanes of its warp that read and are not ordered with it
  bool read_by_warps_ = false;   // other warps of the block read it too, since the barrier
  bool read_by_blocks_ = false;  // other blocks of the launch read it too
  bool write_was_atomic_ = false;
  bool awaits_copy_ = false;
  bool set_by_host_ = false;
};

using Shadow = std::vector<Cell>;

}  // namespace cuda_on_cpu
