#include "ort/fused.h"

#include "fused/group_norm/op.h"
#include "fused/layer_norm/op.h"
#include "fused/linear/op.h"
#include "fused/quantize/op.h"
#include "fused/window_attention/op.h"
#include "ort/ort_op.h"

namespace m2f::ort {
namespace {

const float* floats(const Call& call, int32_t input) {
  return static_cast<const float*>(call.inputs[input].data);
}

struct Linear {
  static constexpr const OpSpec& kSpec = linear::kSpec;
  static constexpr const char* kProvider = nullptr;
  struct Attributes : linear::Attributes {
    linear::Weight weight;  // packed already, if it is a constant
  };

  static m2f::Status read(const AttributeValue values[], Attributes* attributes) {
    return linear::read_attributes(values, attributes);
  }

  static m2f::Status prepare(const TensorView constants[], Attributes* attributes) {
    const TensorView& weight = constants[linear::kInputWeight];
    if (weight.data == nullptr) return {};
    return attributes->weight.pack(weight.dims, static_cast<const float*>(weight.data),
                                   *kernels(0), {run_serially, nullptr});
  }

  static m2f::Status run(const Attributes& attributes, const Call& call) {
    using namespace linear;
    Shape shape;
    m2f::Status status = make_call(call.inputs, call.input_count, &shape);
    if (!status.ok()) return status;
    const bool has_residual = call.input_count > kInputResidual;
    const Tensors tensors = {floats(call, kInputX), floats(call, kInputBias),
                             has_residual ? floats(call, kInputResidual) : nullptr,
                             static_cast<float*>(call.output)};
    thread_local Weight computed;
    const bool is_packed = attributes.weight.is_packed();
    if (!is_packed) {
      status = computed.pack(call.inputs[kInputWeight].dims, floats(call, kInputWeight),
                             *kernels(0), call.parallel);
      if (!status.ok()) return status;
    }
    forward(shape, attributes.activation, is_packed ? attributes.weight : computed, tensors,
            *kernels(0), call.parallel);
    return {};
  }
};

struct LayerNorm {
  static constexpr const OpSpec& kSpec = layer_norm::kSpec;
  static constexpr const char* kProvider = nullptr;
  using Attributes = layer_norm::Attributes;

  static m2f::Status read(const AttributeValue values[], Attributes* attributes) {
    return layer_norm::read_attributes(values, attributes);
  }

  static m2f::Status run(const Attributes& attributes, const Call& call) {
    using namespace layer_norm;
    Shape shape;
    const m2f::Status status = make_call(call.inputs, &shape);
    if (!status.ok()) return status;
    forward(shape, attributes, floats(call, kInputX), floats(call, kInputWeight),
            floats(call, kInputBias), static_cast<float*>(call.output), *kernels(0),
            call.parallel);
    return {};
  }
};

struct GroupNorm {
  static constexpr const OpSpec& kSpec = group_norm::kSpec;
  static constexpr const char* kProvider = nullptr;
  using Attributes = group_norm::Attributes;

  static m2f::Status read(const AttributeValue values[], Attributes* attributes) {
    return group_norm::read_attributes(values, attributes);
  }

  static m2f::Status run(const Attributes& attributes, const Call& call) {
    using namespace group_norm;
    Shape shape;
    const m2f::Status status = make_call(attributes, call.inputs, call.input_count, &shape);
    if (!status.ok()) return status;
    const float* coarse =
        call.input_count > kInputCoarse ? floats(call, kInputCoarse) : nullptr;
    return forward(shape, attributes, floats(call, kInputX), floats(call, kInputWeight),
                   floats(call, kInputBias), coarse, static_cast<float*>(call.output),
                   *kernels(0), call.parallel);
  }
};

struct Quantize {
  static constexpr const OpSpec& kSpec = quantize::kSpec;
  static constexpr const char* kProvider = nullptr;
  using Attributes = quantize::Attributes;

  static m2f::Status read(const AttributeValue values[], Attributes* attributes) {
    return quantize::read_attributes(values, attributes);
  }

  static m2f::Status run(const Attributes& attributes, const Call& call) {
    using namespace quantize;
    const TensorView& x = call.inputs[kInputX];
    const TensorView& zero = call.inputs[kInputZero];
    const Grid grid = make_grid(*floats(call, kInputScale), zero.type, zero.data);
    forward(attributes, grid, x.dims[0] * x.dims[1], floats(call, kInputX), call.output,
            *kernels(0), call.parallel);
    return {};
  }
};

struct WindowAttention {
  static constexpr const OpSpec& kSpec = window_attention::kSpec;
  static constexpr const char* kProvider = nullptr;
  using Attributes = window_attention::Attributes;

  static m2f::Status read(const AttributeValue values[], Attributes* attributes) {
    return window_attention::read_attributes(values, attributes);
  }

  static m2f::Status run(const Attributes& attributes, const Call& call) {
    using namespace window_attention;
    Shape shape;
    const m2f::Status status = make_call(attributes, call.inputs, &shape);
    if (!status.ok()) return status;
    return forward(shape, floats(call, kInputQkv), floats(call, kInputPadding),
                   floats(call, kInputPositionBias), static_cast<float*>(call.output),
                   *kernels(0), call.parallel);
  }
};

}  // namespace

Status* add_fused_ops(const Functions& functions, SessionOptions* options) {
  // Sessions share it, and it has to live as long as the longest of them.
  static CustomOpDomain* domain = nullptr;
  if (domain == nullptr) {
    CustomOpDomain* made = nullptr;
    if (Status* status = functions.create_custom_op_domain(linear::kSpec.domain, &made))
      return status;
    if (Status* status = add<Linear>(functions, made, false)) return status;
    if (Status* status = add<LayerNorm>(functions, made, false)) return status;
    if (Status* status = add<GroupNorm>(functions, made, false)) return status;
    if (Status* status = add<Quantize>(functions, made, false)) return status;
    if (Status* status = add<WindowAttention>(functions, made, false)) return status;
    domain = made;
  }
  return functions.add_custom_op_domain(options, domain);
}

}  // namespace m2f::ort
