#include "fused/group_norm/op.h"

#include <atomic>
#include <cinttypes>

namespace m2f::group_norm {

Status read_attributes(const AttributeValue values[], Attributes* attributes) {
  attributes->groups = values[kAttributeGroups].ints[0];
  attributes->epsilon = values[kAttributeEpsilon].number;
  attributes->activation = values[kAttributeActivation].ints[0];
  return {};
}

Status make_call(const Attributes& attributes, const TensorView inputs[], int64_t count,
                 Shape* shape) {
  const int64_t* coarse = count > kInputCoarse ? inputs[kInputCoarse].dims : nullptr;
  return make_shape(inputs[kInputX].dims, inputs[kInputWeight].dims, inputs[kInputBias].dims,
                    coarse, attributes, shape);
}

Status make_shape(const int64_t x[4], const int64_t weight[1], const int64_t bias[1],
                  const int64_t coarse[4], const Attributes& attributes, Shape* shape) {
  const auto differ = [&](const char* name, int64_t size) {
    return error("GroupNorm: axis C is %" PRId64 " in %s, but %" PRId64 " in x", size, name,
                 x[1]);
  };
  if (attributes.activation != 0 && attributes.activation != 1) {
    return error("GroupNorm: activation is 0 (none) or 1 (ReLU), got %" PRId64,
                 attributes.activation);
  }
  if (attributes.groups < 1 || x[1] % attributes.groups != 0) {
    return error("GroupNorm: groups %" PRId64 " does not divide the %" PRId64 " channels of x",
                 attributes.groups, x[1]);
  }
  if (weight[0] != x[1]) return differ("weight", weight[0]);
  if (bias[0] != x[1]) return differ("bias", bias[0]);
  for (int i = 0; coarse != nullptr && i < 4; ++i) {
    if (coarse[i] * (i < 2 ? 1 : 2) == x[i]) continue;
    return error("GroupNorm: axis %c is %" PRId64 " in x, but %" PRId64 " in coarse%s",
                 "NCHW"[i], x[i], coarse[i], i < 2 ? "" : ", which has half");
  }
  *shape = {x[0], x[1], x[2], x[3], attributes.groups};
  return {};
}

Status forward(const Shape& shape, const Attributes& attributes, const float* x,
               const float* weight, const float* bias, const float* coarse, float* output,
               const Kernels& kernels, const Parallel& parallel) {
  if (shape.batch * shape.channels * shape.pixels() == 0) return {};
  Work work = {
      shape,  attributes.epsilon, attributes.is_rectified(), x, weight, bias, coarse, output,
      nullptr};
  thread_local Scratch memory;
  const int64_t parts = shape.all_groups() * work.parts();
  work.moments = static_cast<fused::Moments*>(
      memory.get(static_cast<size_t>(parts) * sizeof(fused::Moments)));
  if (work.moments == nullptr) {
    return error("GroupNorm: no memory for the means of %" PRId64 " parts", parts);
  }
  auto measure = [&](int64_t task) { kernels.group_norm_measure(work, task); };
  std::atomic<bool> has_memory{true};
  auto normalise = [&](int64_t task) {
    thread_local Scratch row;
    void* floats = row.get(static_cast<size_t>(work.scratch()) * sizeof(float));
    if (work.scratch() > 0 && floats == nullptr) {
      has_memory = false;
      return;
    }
    kernels.group_norm(work, task, static_cast<float*>(floats));
  };
  auto both = [&](int64_t task) {
    measure(task);
    normalise(task);
  };
  if (work.slices() == 1) {
    parallel.run(work.tasks(), both);
  } else {
    parallel.run(work.tasks(), measure);
    parallel.run(work.tasks(), normalise);
  }
  if (!has_memory) return error("GroupNorm: no memory for %" PRId64 " floats", work.scratch());
  return {};
}

}  // namespace m2f::group_norm
