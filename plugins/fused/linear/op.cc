#include "fused/linear/op.h"

#include <algorithm>
#include <cinttypes>

#include "fused/linear/cpu.h"

namespace m2f::linear {
namespace {

// Products of one task, where there are enough for several tasks: 0.1 to 0.2 ms of one core
// with AVX-512, beside which what a pool takes to hand it out is nothing.
constexpr int64_t kTaskProducts = int64_t{1} << 24;
constexpr int64_t kLeastProducts = int64_t{1} << 20;
constexpr int64_t kFewTasks = 16;

constexpr int64_t kMostRows = 384;
constexpr int64_t kRowsStep = 24;  // whole tiles, whatever the instruction set
constexpr int64_t kMostColumns = 480;

Status differ(const char* axis, const char* a, int64_t size_a, const char* b, int64_t size_b) {
  return error("Linear: axis %s is %" PRId64 " in %s, but %" PRId64 " in %s", axis, size_b, b,
               size_a, a);
}

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// As few parts as `most` allows, equal but for rounding to a multiple of `step`.
int64_t part_of(int64_t size, int64_t most, int64_t step) {
  const int64_t parts = std::max<int64_t>(ceil_div(size, most), 1);
  return std::max<int64_t>(ceil_div(ceil_div(size, parts), step), 1) * step;
}

// Splits by rows where there are many, and then by columns until tasks are small enough.
void split(const Shape& s, int64_t panel, Work* work) {
  const int64_t few = s.rows * s.columns * s.inner / kFewTasks;
  const int64_t products = std::clamp(few, kLeastProducts, kTaskProducts);
  work->block_rows = part_of(s.rows, kMostRows, kRowsStep);
  const int64_t column = std::max<int64_t>(std::min(work->block_rows, s.rows) * s.inner, 1);
  const int64_t columns = std::clamp(products / column, panel, std::max(kMostColumns, panel));
  work->block_columns = part_of(s.columns, columns / panel * panel, panel);
}

}  // namespace

Status read_attributes(const AttributeValue values[], Attributes* attributes) {
  const int64_t activation = values[kAttributeActivation].ints[0];
  if (activation < 0 || activation > static_cast<int64_t>(Activation::kGelu)) {
    return error("Linear: activation is 0, 1 or 2, got %" PRId64, activation);
  }
  attributes->activation = static_cast<Activation>(activation);
  return {};
}

Status make_call(const TensorView inputs[], int64_t input_count, Shape* shape) {
  return make_shape(inputs[kInputX].dims, inputs[kInputWeight].dims, inputs[kInputBias].dims,
                    input_count > kInputResidual ? inputs[kInputResidual].dims : nullptr,
                    shape);
}

Status make_shape(const int64_t x[2], const int64_t weight[2], const int64_t bias[1],
                  const int64_t residual[2], Shape* shape) {
  if (weight[0] != x[1]) return differ("K", "x", x[1], "weight", weight[0]);
  if (bias[0] != weight[1]) return differ("N", "weight", weight[1], "bias", bias[0]);
  if (residual != nullptr) {
    if (residual[0] != x[0]) return differ("*", "x", x[0], "residual", residual[0]);
    if (residual[1] != weight[1]) {
      return differ("N", "weight", weight[1], "residual", residual[1]);
    }
  }
  *shape = {x[0], x[1], weight[1]};
  return {};
}

Status Weight::pack(const int64_t shape[2], const float* weight, const Kernels& kernels,
                    const Parallel& parallel) {
  const Packing packing = {shape[0], shape[1], kernels.linear_panel, kernels.lanes};
  is_packed_ = true;
  if (packing.size() == 0) return {};
  auto* packed =
      static_cast<float*>(memory_.get(static_cast<size_t>(packing.size()) * sizeof(float)));
  if (packed == nullptr) {
    is_packed_ = false;
    return error("Linear: no memory for a weight of %" PRId64 " floats", packing.size());
  }
  auto pack = [&](int64_t panel) { kernels.linear_pack(packing, weight, packed, panel); };
  parallel.run(packing.panels(), pack);
  packed_ = packed;
  return {};
}

void forward(const Shape& shape, Activation activation, const Weight& weight,
             const Tensors& tensors, const Kernels& kernels, const Parallel& parallel) {
  if (shape.rows == 0 || shape.columns == 0) return;
  Work work = {
      shape,          activation, tensors.x, weight.packed(), tensors.bias, tensors.residual,
      tensors.output, 0,          0};
  split(shape, kernels.linear_panel, &work);
  auto multiply = [&](int64_t task) { kernels.linear_multiply(work, task); };
  parallel.run(work.tasks(), multiply);
}

void forward_plain(const Shape& shape, Activation activation, const float* weight,
                   const Tensors& tensors) {
  forward_plain(shape, activation, tensors.x, weight, tensors.bias, tensors.residual,
                tensors.output);
}

}  // namespace m2f::linear
