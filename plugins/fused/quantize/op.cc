#include "fused/quantize/op.h"

#include <cinttypes>
#include <limits>

namespace m2f::quantize {
namespace {

template <class T>
Grid grid_of(float scale, const void* zero) {
  using Limits = std::numeric_limits<T>;
  const int32_t shift = *static_cast<const T*>(zero);
  return {scale, static_cast<float>(Limits::min() - shift),
          static_cast<float>(Limits::max() - shift), shift};
}

}  // namespace

Status read_attributes(const AttributeValue values[], Attributes* attributes) {
  const int64_t activation = values[kAttributeActivation].ints[0];
  if (activation < 0 || activation > static_cast<int64_t>(fused::Activation::kGelu)) {
    return error("Quantize: activation is 0, 1 or 2, got %" PRId64, activation);
  }
  attributes->activation = static_cast<fused::Activation>(activation);
  return {};
}

Grid make_grid(float scale, Storage type, const void* zero) {
  return type == Storage::kInt8 ? grid_of<int8_t>(scale, zero) : grid_of<uint8_t>(scale, zero);
}

void forward(const Attributes& attributes, const Grid& grid, int64_t count, const float* x,
             void* output, const Kernels& kernels, const Parallel& parallel) {
  const Work work = {attributes.activation, grid, count, x, static_cast<uint8_t*>(output)};
  auto quantise = [&](int64_t task) { kernels.quantize(work, task); };
  parallel.run(work.tasks(), quantise);
}

}  // namespace m2f::quantize
