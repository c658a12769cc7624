#include "ort/fused.h"

#include "fused/window_attention/op.h"
#include "ort/ort_op.h"

namespace m2f::ort {
namespace {

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
    const auto input = [&](Input index) {
      return static_cast<const float*>(call.inputs[index].data);
    };
    return forward(shape, input(kInputQkv), input(kInputPadding), input(kInputPositionBias),
                   static_cast<float*>(call.output), *kernels(0), call.parallel);
  }
};

}  // namespace

Status* add_fused_ops(const Functions& functions, SessionOptions* options) {
  // Sessions share it, and it has to live as long as the longest of them.
  static CustomOpDomain* domain = nullptr;
  if (domain == nullptr) {
    CustomOpDomain* made = nullptr;
    if (Status* status = functions.create_custom_op_domain("m2f.cpu", &made)) return status;
    if (Status* status = add<WindowAttention>(functions, made, false)) return status;
    domain = made;
  }
  return functions.add_custom_op_domain(options, domain);
}

}  // namespace m2f::ort
