#pragma once

#include "common/simd.h"
#include "fused/quantize/math.h"

// Quantize in vectors, for one instruction set per inclusion.
//
// Work:    a task is some elements; of each four vectors at a time, which become bytes at
//          once, and whose GELUs do not wait for each other.
// Traffic: every element is read once, and a quarter of that is written. Memory binds, so
//          elements are asked for before their turn.
// Math:    math.h. Not here: threads, checks (op.cc).

namespace m2f::quantize {
namespace {

using Bytes = uint8_t __attribute__((vector_size(kLanes)));

constexpr int kVectors = 4;
constexpr int64_t kStep = kVectors * kLanes;
constexpr int64_t kAhead = 1024;  // floats

// The low eight bits of each.
M2F_HD void store_bytes(Ints x, uint8_t* to) {
  const Bytes bytes = __builtin_convertvector(x, Bytes);
  __builtin_memcpy(to, &bytes, sizeof bytes);
}

template <fused::Activation kActivation>
M2F_HD void quantise_step(const Grid& grid, const float* x, uint8_t* output) {
  Floats y[kVectors];
  for (int i = 0; i < kVectors; ++i) y[i] = load(x + i * kLanes);
  fused::activate(kActivation, y);
  for (int i = 0; i < kVectors; ++i) {
    const Ints bits = reinterpret_cast<Ints>(rounded(y[i], grid));
    store_bytes(bits + offset_of(grid), output + i * kLanes);
  }
}

template <fused::Activation kActivation>
void quantise_as(const Work& work, int64_t begin, int64_t end) {
  const Grid grid = work.grid;
  int64_t i = begin;
  for (; i + kStep <= end; i += kStep) {
    for (int64_t line = 0; line < kStep; line += 16) {
      __builtin_prefetch(work.x + i + line + kAhead, 0);
    }
    quantise_step<kActivation>(grid, work.x + i, work.output + i);
  }
  if (i == end) return;
  float x[kStep] = {};
  uint8_t output[kStep];
  const size_t rest = static_cast<size_t>(end - i);
  __builtin_memcpy(x, work.x + i, rest * sizeof *x);
  quantise_step<kActivation>(grid, x, output);
  __builtin_memcpy(work.output + i, output, rest);
}

void quantise(const Work& work, int64_t task) {
  using fused::Activation;
  const int64_t begin = task * Work::kTask;
  const int64_t left = work.count - begin;
  const int64_t end = begin + (left < Work::kTask ? left : Work::kTask);
  switch (work.activation) {
    case Activation::kNone:
      return quantise_as<Activation::kNone>(work, begin, end);
    case Activation::kRelu:
      return quantise_as<Activation::kRelu>(work, begin, end);
    case Activation::kGelu:
      return quantise_as<Activation::kGelu>(work, begin, end);
  }
}

}  // namespace
}  // namespace m2f::quantize
