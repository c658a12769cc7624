#pragma once

#include "common/kernels.h"
#include "common/parallel.h"
#include "common/status.h"
#include "fused/linear/math.h"
#include "fused/linear/spec.h"

namespace m2f::linear {

struct Attributes {
  Activation activation = Activation::kNone;
};

// From what a node has, in the order of kAttributes.
Status read_attributes(const AttributeValue values[], Attributes* attributes);

// Checks one call and says what disagrees; `inputs` as in kInputs.
Status make_call(const TensorView inputs[], int64_t input_count, Shape* shape);

// Checks sizes and says which two disagree: x [M, K], weight [K, N], bias [N], residual [M, N],
// which may be null.
Status make_shape(const int64_t x[2], const int64_t weight[2], const int64_t bias[1],
                  const int64_t residual[2], Shape* shape);

// The tensors of one call; no residual where it is null.
struct Tensors {
  const float* x;
  const float* bias;
  const float* residual;
  float* output;
};

// A weight [K, N] in the order that these kernels read it. Memory is held as long as this is.
class Weight {
 public:
  // Fails only for want of memory.
  Status pack(const int64_t shape[2], const float* weight, const Kernels& kernels,
              const Parallel& parallel);

  bool is_packed() const { return is_packed_; }
  const float* packed() const { return packed_; }

 private:
  Scratch memory_;
  const float* packed_ = nullptr;  // of an empty weight, too
  bool is_packed_ = false;
};

// Runs on the CPU, with a weight that the same kernels have packed.
void forward(const Shape& shape, Activation activation, const Weight& weight,
             const Tensors& tensors, const Kernels& kernels, const Parallel& parallel);

// The same in plain loops (cpu.h), on this thread.
void forward_plain(const Shape& shape, Activation activation, const float* weight,
                   const Tensors& tensors);

}  // namespace m2f::linear
