#include "fused/layer_norm/op.h"

#include <cinttypes>

namespace m2f::layer_norm {

Status read_attributes(const AttributeValue values[], Attributes* attributes) {
  attributes->epsilon = values[kAttributeEpsilon].number;
  return {};
}

Status make_call(const TensorView inputs[], Shape* shape) {
  return make_shape(inputs[kInputX].dims, inputs[kInputWeight].dims, inputs[kInputBias].dims,
                    shape);
}

Status make_shape(const int64_t x[2], const int64_t weight[1], const int64_t bias[1],
                  Shape* shape) {
  const auto differ = [&](const char* name, int64_t size) {
    return error("LayerNorm: axis C is %" PRId64 " in %s, but %" PRId64 " in x", size, name,
                 x[1]);
  };
  if (weight[0] != x[1]) return differ("weight", weight[0]);
  if (bias[0] != x[1]) return differ("bias", bias[0]);
  *shape = {x[0], x[1]};
  return {};
}

void forward(const Shape& shape, const Attributes& attributes, const float* x,
             const float* weight, const float* bias, float* output, const Kernels& kernels,
             const Parallel& parallel) {
  if (shape.channels == 0) return;
  const Work work = {shape, attributes.epsilon, x, weight, bias, output};
  auto normalise = [&](int64_t task) { kernels.layer_norm(work, task); };
  parallel.run(work.tasks(), normalise);
}

}  // namespace m2f::layer_norm
