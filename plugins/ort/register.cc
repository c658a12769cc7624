// The ops as an ONNX Runtime custom-op library: `SessionOptions.register_custom_ops_library`.

#include <cstring>

#include "common/export.h"
#include "ops/masked_attention/op.h"
#include "ops/ms_deform_attn/op.h"
#include "ort/ort_op.h"

namespace m2f::ort {
namespace {

constexpr char kDomain[] = "m2f";

struct MsDeformAttn {
  static constexpr const char* kName = "MSDeformAttn";
  static constexpr size_t kInputs = 2;
  static constexpr bool kIsVariadic = true;

  struct Attributes {
    ms_deform_attn::Attributes op;
    size_t level_sides;  // 0 where sizes come with the inputs
    int64_t level_shapes[2 * ms_deform_attn::kMaxLevels];
  };

  static m2f::Status read(const AttributeReader& reader, Attributes* a) {
    if (!reader.get("heads", &a->op.heads))
      return error("%s: needs the attribute heads", kName);
    if (!reader.get("points", &a->op.points)) {
      return error("%s: needs the attribute points", kName);
    }
    const size_t capacity = 2 * ms_deform_attn::kMaxLevels;
    const bool given = reader.get("level_shapes", a->level_shapes, capacity, &a->level_sides);
    if (a->level_sides % 2 != 0 || (a->level_sides != 0 && !given)) {
      return error("%s: level_shapes is H_0, W_0, ... of 1 to %d levels, got %zu numbers",
                   kName, ms_deform_attn::kMaxLevels, a->level_sides);
    }
    return {};
  }

  static m2f::Status run(const Attributes& a, const Call& call) {
    int64_t sides[2 * kMaxInputs];
    const int64_t* levels = a.level_shapes;
    size_t count = a.level_sides / 2;
    if (count == 0) {
      count = call.inputs - kInputs;
      for (size_t l = 0; l < count; ++l) {
        sides[2 * l] = call.input[kInputs + l].dims[2];
        sides[2 * l + 1] = call.input[kInputs + l].dims[3];
      }
      levels = sides;
    }
    const Tensor& value = call.input[0];
    const Tensor& sampling = call.input[1];
    ms_deform_attn::Shape shape;
    const m2f::Status status = ms_deform_attn::make_shape(
        value.dims, sampling.dims, levels, static_cast<int64_t>(count), a.op, &shape);
    if (!status.ok()) return status;
    return ms_deform_attn::forward(shape, call.storage, value.data, sampling.data, call.output,
                                   *kernels(0), call.parallel);
  }
};

struct MaskedAttention {
  static constexpr const char* kName = "MaskedAttention";
  static constexpr size_t kInputs = 4;
  static constexpr bool kIsVariadic = false;

  using Attributes = masked_attention::Attributes;

  static m2f::Status read(const AttributeReader& reader, Attributes* a) {
    if (!reader.get("heads", &a->heads)) return error("%s: needs the attribute heads", kName);
    return {};
  }

  static m2f::Status run(const Attributes& a, const Call& call) {
    const Tensor& q = call.input[0];
    const Tensor& k = call.input[1];
    const Tensor& v = call.input[2];
    const Tensor& mask = call.input[3];
    masked_attention::Shape shape;
    const m2f::Status status =
        masked_attention::make_shape(q.dims, k.dims, v.dims, mask.dims, a, &shape);
    if (!status.ok()) return status;
    return masked_attention::forward(shape, call.storage, q.data, k.data, v.data, mask.data,
                                     call.output, *kernels(0), call.parallel);
  }
};

template <class Op>
Status* add(const Functions& functions, CustomOpDomain* domain, bool is_float_only) {
  const CustomOp* ops[] = {custom_op<Op, Element::kFloat>(), custom_op<Op, Element::kFloat16>(),
                           custom_op<Op, Element::kBFloat16>()};
  for (const CustomOp* op : ops) {
    if (Status* status = functions.custom_op_domain_add(domain, op)) return status;
    if (is_float_only) break;
  }
  return nullptr;
}

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
    if (Status* status = functions.create_custom_op_domain(kDomain, &made)) return status;
    // onnxruntime 1.17 cannot tell the types of a variadic op of several types apart.
    const bool is_float_only = std::strncmp(base->get_version(), "1.17.", 5) == 0;
    if (Status* status = add<MsDeformAttn>(functions, made, is_float_only)) return status;
    if (Status* status = add<MaskedAttention>(functions, made, is_float_only)) return status;
    domain = made;
  }
  return functions.add_custom_op_domain(options, domain);
}
