// The ops as an ONNX Runtime custom-op library: `SessionOptions.register_custom_ops_library`.

#include <cstring>

#include "common/export.h"
#include "ops/masked_attention/op.h"
#include "ops/ms_deform_attn/op.h"
#include "ort/fused.h"
#include "ort/ort_op.h"
#include "ort/register_cuda.h"

namespace m2f::ort {
namespace {

struct MsDeformAttn {
  static constexpr const OpSpec& kSpec = ms_deform_attn::kSpec;
  static constexpr const char* kProvider = nullptr;
  using Attributes = ms_deform_attn::Attributes;

  static m2f::Status read(const AttributeValue values[], Attributes* attributes) {
    return ms_deform_attn::read_attributes(values, attributes);
  }

  static m2f::Status run(const Attributes& attributes, const Call& call) {
    ms_deform_attn::Shape shape;
    ms_deform_attn::Format format;
    const m2f::Status status =
        ms_deform_attn::make_call(attributes, call.inputs, call.input_count, &shape, &format);
    if (!status.ok()) return status;
    return ms_deform_attn::forward(shape, format, call.inputs[ms_deform_attn::kInputValue].data,
                                   call.inputs[ms_deform_attn::kInputSampling].data,
                                   call.output, *kernels(0), call.parallel);
  }
};

struct MaskedAttention {
  static constexpr const OpSpec& kSpec = masked_attention::kSpec;
  static constexpr const char* kProvider = nullptr;
  using Attributes = masked_attention::Attributes;

  static m2f::Status read(const AttributeValue values[], Attributes* attributes) {
    return masked_attention::read_attributes(values, attributes);
  }

  static m2f::Status run(const Attributes& attributes, const Call& call) {
    using namespace masked_attention;
    masked_attention::Shape shape;
    const m2f::Status status = make_call(attributes, call.inputs, &shape);
    if (!status.ok()) return status;
    return forward(shape, call.inputs[kInputQ].type, call.inputs[kInputQ].data,
                   call.inputs[kInputK].data, call.inputs[kInputV].data,
                   call.inputs[kInputMaskLogits].data, call.output, *kernels(0), call.parallel);
  }
};

}  // namespace
}  // namespace m2f::ort

extern "C" M2F_EXPORT m2f::ort::Status* RegisterCustomOps(m2f::ort::SessionOptions* options,
                                                          const m2f::ort::ApiBase* base) {
  using namespace m2f::ort;
  const Api* api = base->get_api(kApiVersion);
  if (api == nullptr) return nullptr;  // older than 1.17: its own message says so, and no ops
  registered_api() = api;
  const Functions functions(api);
  // Sessions share it, and it has to live as long as the longest of them.
  static CustomOpDomain* domain = nullptr;
  if (domain == nullptr) {
    CustomOpDomain* made = nullptr;
    const char* name = m2f::ms_deform_attn::kSpec.domain;
    if (Status* status = functions.create_custom_op_domain(name, &made)) return status;
    // onnxruntime 1.17 cannot tell the types of a variadic op of several types apart.
    const bool is_float_only = std::strncmp(base->get_version(), "1.17.", 5) == 0;
    if (Status* status = add<MsDeformAttn>(functions, made, is_float_only)) return status;
    if (Status* status = add<MaskedAttention>(functions, made, is_float_only)) return status;
    if (Status* status = add_cuda_ops(functions, made, is_float_only)) return status;
    domain = made;
  }
  if (Status* status = functions.add_custom_op_domain(options, domain)) return status;
  return add_fused_ops(functions, options);
}
