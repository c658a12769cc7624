#include "ops/ms_deform_attn/op.h"

#include <cinttypes>
#include <cmath>

#include "ops/ms_deform_attn/cpu.h"

namespace m2f::ms_deform_attn {

Status read_attributes(const AttributeValue values[], Attributes* attributes) {
  const AttributeValue& sides = values[kAttributeLevelShapes];
  attributes->heads = values[kAttributeHeads].ints[0];
  attributes->points = values[kAttributePoints].ints[0];
  attributes->value_scale = values[kAttributeValueScale].number;
  attributes->level_count = sides.count / 2;
  if (sides.count % 2 != 0 || sides.count > 2 * kMaxLevels) {
    return error("MSDeformAttn: level_shapes is H_0, W_0, ... of 1 to %d levels, got %" PRId64
                 " numbers",
                 kMaxLevels, sides.count);
  }
  for (int64_t i = 0; i < sides.count; ++i) attributes->level_sides[i] = sides.ints[i];
  return {};
}

Status make_call(const Attributes& attributes, const TensorView inputs[], int64_t input_count,
                 Shape* shape, Format* format) {
  const TensorView& value = inputs[kInputValue];
  const TensorView& sampling = inputs[kInputSampling];
  *format = {value.type, sampling.type, attributes.value_scale};
  const Status status = check(*format);
  if (!status.ok()) return status;
  if (attributes.level_count != 0) {
    return make_shape(value.dims, sampling.dims, attributes.level_sides, attributes.level_count,
                      attributes, shape);
  }
  int64_t sides[2 * kMaxInputs];
  int64_t count = 0;
  for (int64_t i = kInputLevels; i < input_count; ++i, ++count) {
    sides[2 * count] = inputs[i].dims[2];
    sides[2 * count + 1] = inputs[i].dims[3];
  }
  return make_shape(value.dims, sampling.dims, sides, count, attributes, shape);
}

Status check(const Format& format) {
  const float scale = format.value_scale;
  if (format.value == Storage::kInt8) {
    if (scale > 0.0f && scale < INFINITY) return {};
    return error("MSDeformAttn: value_scale of an int8 value is %g, expected a number above 0",
                 scale);
  }
  if (format.value != format.sampling) {
    return error(
        "MSDeformAttn: value and sampling have different types; only an int8 value "
        "may stand beside another type");
  }
  if (scale == 1.0f) return {};
  return error("MSDeformAttn: value_scale is %g, but value is no int8, where it has to be 1",
               scale);
}

Status make_shape(const int64_t value[3], const int64_t sampling[3], const int64_t* sides,
                  int64_t level_count, const Attributes& attributes, Shape* shape) {
  const int64_t samples = level_count * attributes.points;
  if (attributes.heads < 1 || value[2] % attributes.heads != 0) {
    return error("MSDeformAttn: heads %" PRId64 " does not divide the %" PRId64
                 " channels of value",
                 attributes.heads, value[2]);
  }
  if (level_count < 1 || level_count > kMaxLevels) {
    return error("MSDeformAttn: takes 1 to %d levels, got %" PRId64, kMaxLevels, level_count);
  }
  if (attributes.points < 1 || attributes.points > kMaxSamples || samples > kMaxSamples) {
    return error("MSDeformAttn: takes 1 to %d samples per head (levels * points), got %" PRId64
                 " * %" PRId64,
                 kMaxSamples, level_count, attributes.points);
  }
  if (value[0] != sampling[0] || value[1] != sampling[1]) {
    return error("MSDeformAttn: value has [N, S] = [%" PRId64 ", %" PRId64
                 "], but sampling [%" PRId64 ", %" PRId64 "]",
                 value[0], value[1], sampling[0], sampling[1]);
  }
  if (sampling[2] / 3 / samples != attributes.heads ||
      sampling[2] != 3 * attributes.heads * samples) {
    return error("MSDeformAttn: sampling has a last axis of %" PRId64
                 ", expected heads * levels * points * 3 = %" PRId64,
                 sampling[2], 3 * attributes.heads * samples);
  }
  Shape s = {value[0],
             value[1],
             value[2],
             static_cast<int32_t>(attributes.heads),
             static_cast<int32_t>(attributes.points),
             static_cast<int32_t>(level_count),
             {}};
  int64_t total = 0;
  for (int64_t l = 0; l < level_count; ++l) {
    const int64_t height = sides[2 * l];
    const int64_t width = sides[2 * l + 1];
    // Positions are counted in 32 bits, and must be exact as floats along each axis.
    constexpr int64_t kLongest = int64_t{1} << 20;
    if (height < 1 || width < 1 || height > kLongest || width > kLongest ||
        total + height * width > INT32_MAX) {
      return error("MSDeformAttn: level %" PRId64 " is %" PRId64 " x %" PRId64
                   ", expected sides of 1 to 2^20 and at most 2^31 pixels in all",
                   l, height, width);
    }
    s.level[l] = {static_cast<int32_t>(height), static_cast<int32_t>(width),
                  static_cast<int32_t>(total)};
    total += height * width;
  }
  if (total != value[1]) {
    return error("MSDeformAttn: the levels have %" PRId64 " pixels, but value has S = %" PRId64,
                 total, value[1]);
  }
  *shape = s;
  return {};
}

Status forward(const Shape& shape, const Format& format, const void* value,
               const void* sampling, void* output, const Kernels& kernels,
               const Parallel& parallel) {
  if (shape.batch == 0 || shape.channels == 0) return {};
  Work work;
  work.shape = shape;
  work.format = format;
  work.value = value;
  work.sampling = sampling;
  work.output = output;
  work.padded = (shape.depth() + kernels.lanes - 1) / kernels.lanes * kernels.lanes;

  const int64_t rows = shape.batch * shape.heads * shape.positions;
  thread_local Scratch scratch;
  work.columns =
      static_cast<float*>(scratch.get(static_cast<size_t>(rows * work.padded) * sizeof(float)));
  if (work.columns == nullptr) {
    return error("MSDeformAttn: no memory for %" PRId64 " rows of %" PRId64 " floats", rows,
                 work.padded);
  }
  auto pack = [&](int64_t task) { kernels.ms_deform_attn_pack(work, task); };
  auto attend = [&](int64_t task) { kernels.ms_deform_attn(work, task); };
  parallel.run(work.pack_tasks(), pack);
  parallel.run(work.tasks(), attend);
  return {};
}

void forward_plain(const Shape& shape, const Format& format, const void* value,
                   const void* sampling, void* output) {
  const auto run = [&](auto of_value, auto of_sampling) {
    using V = decltype(of_value);
    using T = decltype(of_sampling);
    forward_plain(shape, format.value_scale, static_cast<const V*>(value),
                  static_cast<const T*>(sampling), static_cast<T*>(output));
  };
  const bool is_int8 = format.value == Storage::kInt8;
  const auto run_with = [&](auto type) {
    return is_int8 ? run(int8_t{}, type) : run(type, type);
  };
  if (format.sampling == Storage::kFloat32) return run_with(float{});
  if (format.sampling == Storage::kFloat16) return run_with(Half{});
  run_with(BFloat16{});
}

}  // namespace m2f::ms_deform_attn
