#pragma once

#include <atomic>
#include <cstring>
#include <exception>
#include <new>
#include <string>
#include <utility>

#include "common/kernels.h"
#include "common/op_spec.h"
#include "common/parallel.h"
#include "ort/ort_abi.h"

// An op for ONNX Runtime, from its traits. What every op needs is here, once: types, shape
// inference, attributes, threads, errors. Traits give
//
//   kSpec                          what op.toml says
//   kProvider                      the execution provider that runs it; null is the CPU's
//   Attributes                     with static Status read(const AttributeValue[], Attributes*)
//   static Status run(const Attributes&, const Call&)
//   static Status prepare(const TensorView[], Attributes*)
//
// The last may be left out. It sees those inputs that are constants, once, when a node's kernel
// is made; the others have no data.
//
// The output has as many axes as the first input, and their sizes by their letters.

namespace m2f::ort {

// The strongest promise this library makes: no exception leaves it.
inline Status* fail(const Functions& functions, const m2f::Status& status) {
  return status.ok() ? nullptr
                     : functions.create_status(ErrorCode::kInvalidArgument, status.text);
}

constexpr Element element_from(Storage storage) {
  switch (storage) {
    case Storage::kFloat16:
      return Element::kFloat16;
    case Storage::kBFloat16:
      return Element::kBFloat16;
    case Storage::kInt8:
      return Element::kInt8;
    case Storage::kUInt8:
      return Element::kUInt8;
    default:
      return Element::kFloat;
  }
}

// Reads one attribute of a node; absent it stays as it is.
inline void read(const Functions& functions, const KernelInfo* info, const AttributeSpec& spec,
                 AttributeValue* value) {
  const auto succeeded = [&](Status* status) {
    if (status != nullptr) functions.release_status(status);
    return status == nullptr;
  };
  size_t count = 0;
  switch (spec.kind) {
    case AttributeKind::kInt:
      value->is_given = succeeded(functions.attribute_int(info, spec.name, value->ints));
      break;
    case AttributeKind::kFloat:
      value->is_given = succeeded(functions.attribute_float(info, spec.name, &value->number));
      break;
    case AttributeKind::kInts:
      value->is_given = succeeded(functions.attribute_ints(info, spec.name, nullptr, &count));
      value->count = value->is_given ? static_cast<int64_t>(count) : 0;
      if (value->is_given && count <= kMaxInts) {
        value->is_given =
            succeeded(functions.attribute_ints(info, spec.name, value->ints, &count));
      }
  }
}

// Sizes of a tensor as the framework has them; -1 is one that is not known yet.
struct Sizes {
  int64_t dims[kMaxAxes];
  size_t rank;

  // Whether a description's axes fit; a flattened one needs no axis at all.
  bool fit(const TensorSpec& spec) const {
    const size_t wanted = static_cast<size_t>(spec.rank());
    return spec.is_flattened() ? rank + 1 >= wanted : rank == wanted;
  }

  // Where a letter's axis is; those that a '*' stands for come before all letters.
  size_t place(const TensorSpec& spec, int32_t letter) const {
    return rank - static_cast<size_t>(spec.rank() - letter);
  }

  // Sizes by letter, with those that a '*' stands for multiplied.
  void flatten(const TensorSpec& spec, int64_t by_letter[]) const {
    for (int32_t i = 0; i < spec.rank(); ++i) {
      by_letter[i] = spec.is_flattened() && i == 0 ? 1 : dims[place(spec, i)];
    }
    if (!spec.is_flattened()) return;
    for (size_t axis = 0; axis < place(spec, 1); ++axis) by_letter[0] *= dims[axis];
  }
};

// Sizes of the output: those of the first input, but where a letter says otherwise.
inline Sizes output_sizes(const OpSpec& spec, const Sizes inputs[], int32_t count) {
  const TensorSpec& output = spec.outputs[0];
  Sizes sizes = inputs[0];
  for (int32_t i = count - 1; i >= 0; --i) {
    const TensorSpec& input = spec.input(i);
    for (int32_t letter = output.is_flattened() ? 1 : 0; letter < output.rank(); ++letter) {
      const char* found = std::strchr(input.axes, output.axes[letter]);
      if (found == nullptr) continue;
      const size_t from = inputs[i].place(input, static_cast<int32_t>(found - input.axes));
      sizes.dims[sizes.place(output, letter)] = inputs[i].dims[from];
    }
  }
  return sizes;
}

// One run of a node.
struct Call {
  TensorView inputs[kMaxInputs];
  int64_t input_count;
  void* output;
  Parallel parallel;
  void* stream;  // of the device, null on the CPU
};

template <class Op, class = void>
constexpr bool kPrepares = false;
template <class Op>
constexpr bool kPrepares<Op, std::void_t<decltype(&Op::prepare)>> = true;

template <class Op, int32_t kSignature>
class Kernel {
 public:
  Kernel(const Api* api, const KernelInfo* info) : functions_(api) {
    AttributeValue values[kMaxAttributes];
    for (int32_t i = 0; i < Op::kSpec.attribute_count; ++i) {
      read(functions_, info, Op::kSpec.attributes[i], &values[i]);
    }
    status_ = complete(Op::kSpec, values);
    if (status_.ok()) status_ = Op::read(values, &attributes_);
    if constexpr (kPrepares<Op>) {
      if (status_.ok()) prepare(info);
    }
  }

  const m2f::Status& status() const { return status_; }
  const Functions& functions() const { return functions_; }

  Status* compute(KernelContext* context) const {
    Call call;
    size_t count = 0;
    if (Status* status = functions_.input_count(context, &count)) return status;
    if (count < Op::kSpec.required_inputs() || count > kMaxInputs) {
      return fail(functions_, error("%s: takes %d inputs, got %zu", Op::kSpec.name,
                                    Op::kSpec.required_inputs(), count));
    }
    call.input_count = static_cast<int64_t>(count);
    Sizes sizes[kMaxInputs];
    for (size_t i = 0; i < count; ++i) {
      const Value* value = nullptr;
      if (Status* status = functions_.input(context, i, &value)) return status;
      if (Status* status = view(value, i, &sizes[i], &call.inputs[i])) return status;
    }
    const Sizes made = output_sizes(Op::kSpec, sizes, Op::kSpec.required_inputs());
    Value* output = nullptr;
    if (Status* status = functions_.output(context, 0, made.dims, made.rank, &output)) {
      return status;
    }
    if (Status* status = functions_.tensor_data(output, &call.output)) return status;
    Pool pool = {functions_, context};
    call.parallel = {Pool::for_each, &pool};
    call.stream = nullptr;
    if (Op::kProvider != nullptr) {
      if (Status* status = functions_.gpu_stream(context, &call.stream)) return status;
    }
    return fail(functions_, Op::run(attributes_, call));
  }

 private:
  void prepare(const KernelInfo* info) {
    TensorView constants[kMaxInputs] = {};
    for (int32_t i = 0; i < Op::kSpec.required_inputs(); ++i) {
      int is_constant = 0;
      const Value* value = nullptr;
      Sizes sizes;
      const size_t index = static_cast<size_t>(i);
      Status* status = functions_.constant_input(info, index, &is_constant, &value);
      if (status == nullptr && is_constant != 0) {
        status = view(value, index, &sizes, &constants[i]);
      }
      if (status == nullptr) continue;
      // What is wrong with it is said when the node is run.
      functions_.release_status(status);
      constants[i].data = nullptr;
    }
    status_ = Op::prepare(constants, &attributes_);
  }

  // ONNX Runtime's threads, of the session that runs the node.
  struct Pool {
    const Functions& functions;
    const KernelContext* context;

    static void for_each(const Parallel& self, size_t count, Task task, void* data) {
      const Pool& pool = *static_cast<const Pool*>(self.pool);
      // As many batches as tasks: threads that are done early take from the rest.
      Status* status = pool.functions.parallel_for(pool.context, task, count, count, data);
      if (status == nullptr) return;
      pool.functions.release_status(status);  // it refused before running any
      run_serially(self, count, task, data);
    }
  };

  Status* view(const Value* value, size_t index, Sizes* sizes, TensorView* tensor) const {
    const int32_t place = static_cast<int32_t>(index);
    const TensorSpec& spec = Op::kSpec.input(place);
    tensor->type = Op::kSpec.input_type(kSignature, place);
    TensorInfo* info = nullptr;
    if (Status* status = functions_.tensor_info(value, &info)) return status;
    Element element;
    Status* status = functions_.element_type(info, &element);
    if (status == nullptr && element != element_from(tensor->type)) {
      status = fail(functions_, error("%s: input %zu has element type %d, expected %d",
                                      Op::kSpec.name, index, static_cast<int>(element),
                                      static_cast<int>(element_from(tensor->type))));
    }
    if (status == nullptr) status = functions_.rank(info, &sizes->rank);
    if (status == nullptr && (!sizes->fit(spec) || sizes->rank > kMaxAxes)) {
      status =
          fail(functions_, error("%s: input %zu has %zu axes, expected %d (%s)", Op::kSpec.name,
                                 index, sizes->rank, spec.rank(), spec.axes));
    }
    if (status == nullptr) status = functions_.dimensions(info, sizes->dims, sizes->rank);
    functions_.release_tensor_info(info);
    if (status != nullptr) return status;
    sizes->flatten(spec, tensor->dims);
    void* data = nullptr;
    status = functions_.tensor_data(const_cast<Value*>(value), &data);
    tensor->data = data;
    return status;
  }

  Functions functions_;
  typename Op::Attributes attributes_{};
  m2f::Status status_;
};

template <class Op, int32_t kSignature>
Status* create_kernel(const CustomOp*, const Api* api, const KernelInfo* info, void** kernel) {
  *kernel = nullptr;
  const Functions functions(api);
  try {
    auto* made = new Kernel<Op, kSignature>(api, info);
    if (made->status().ok()) {
      *kernel = made;
      return nullptr;
    }
    Status* status = fail(functions, made->status());
    delete made;
    return status;
  } catch (const std::exception& problem) {
    return fail(functions, error("%s: %s", Op::kSpec.name, problem.what()));
  }
}

template <class Op, int32_t kSignature>
Status* compute(void* kernel, KernelContext* context) {
  const auto& self = *static_cast<const Kernel<Op, kSignature>*>(kernel);
  try {
    return self.compute(context);
  } catch (const std::exception& problem) {
    return fail(self.functions(), error("%s: %s", Op::kSpec.name, problem.what()));
  }
}

// Filled once, when the library is registered; shape inference gets no table of its own.
inline const Api*& registered_api() {
  static const Api* api = nullptr;
  return api;
}

// Names those sizes that are neither known nor named, each differently: else they would become
// a -1 that others compute with. Those that are known lose the name they had as the first
// input's: else they would count as equal to that.
inline Status* name_sizes(const Functions& functions, TensorInfo* info, const Sizes& sizes) {
  static std::atomic<uint32_t> count{0};
  const char* names[kMaxAxes];
  if (Status* status = functions.axis_names(info, names, sizes.rank)) return status;
  std::string kept[kMaxAxes];  // the old ones go when the new ones come
  for (size_t i = 0; i < sizes.rank; ++i) {
    if (sizes.dims[i] < 0) {
      kept[i] = names[i][0] == '\0' ? "m2f." + std::to_string(count++) : names[i];
    }
    names[i] = kept[i].c_str();
  }
  return functions.set_axis_names(info, names, sizes.rank);
}

// The sizes and the type that the inputs say the output has: the description of the first
// input is the context's own copy, so it may be changed. What it says of the axes that stay,
// their names for one, stays with it.
template <class Op>
Status* infer_shape_of(const Functions& functions, ShapeInferContext* context) {
  const OpSpec& spec = Op::kSpec;
  TensorInfo* first = nullptr;  // owned by the context
  Sizes sizes[kMaxInputs];
  bool are_known = true;
  for (int32_t i = 0; i < spec.required_inputs(); ++i) {
    TensorInfo* info = nullptr;
    if (Status* status = functions.input_type_shape(context, i, &info)) return status;
    if (i == 0) first = info;
    if (Status* status = functions.rank(info, &sizes[i].rank)) return status;
    are_known = are_known && sizes[i].fit(spec.inputs[i]) && sizes[i].rank <= kMaxAxes;
    if (!are_known) break;
    Status* status = functions.dimensions(info, sizes[i].dims, sizes[i].rank);
    if (status != nullptr) return status;
  }
  if (are_known) {
    const Sizes made = output_sizes(spec, sizes, spec.required_inputs());
    if (std::memcmp(made.dims, sizes[0].dims, made.rank * sizeof made.dims[0]) != 0) {
      if (Status* status = functions.set_dimensions(first, made.dims, made.rank)) return status;
    }
    if (Status* status = name_sizes(functions, first, made)) return status;
  }
  for (int32_t i = 0; i < spec.required_inputs(); ++i) {
    if (spec.inputs[i].type != spec.outputs[0].type) continue;
    TensorInfo* same = nullptr;
    if (Status* status = functions.input_type_shape(context, i, &same)) return status;
    Element element;
    if (Status* status = functions.element_type(same, &element)) return status;
    if (Status* status = functions.set_element_type(first, element)) return status;
    break;
  }
  return functions.set_output_type_shape(context, 0, first);
}

template <class Op>
Status* infer_shape(const CustomOp*, ShapeInferContext* context) {
  const Functions functions(registered_api());
  try {
    return infer_shape_of<Op>(functions, context);
  } catch (const std::exception& problem) {
    return fail(functions, error("%s: %s", Op::kSpec.name, problem.what()));
  }
}

// One per choice of types, all of one name: ONNX Runtime picks by the types of a node's inputs.
// ("Any type" is allowed for one input only before onnxruntime 1.19.)
template <class Op, int32_t kSignature>
const CustomOp* custom_op() {
  static const CustomOp op = [] {
    CustomOp o{};
    o.version = kApiVersion;
    o.name = [](const CustomOp*) { return Op::kSpec.name; };
    o.execution_provider = [](const CustomOp*) { return Op::kProvider; };
    o.input_type = [](const CustomOp*, size_t index) {
      return element_from(Op::kSpec.input_type(kSignature, static_cast<int32_t>(index)));
    };
    o.output_type = [](const CustomOp*, size_t index) {
      return element_from(Op::kSpec.output_type(kSignature, static_cast<int32_t>(index)));
    };
    o.input_type_count = [](const CustomOp*) -> size_t { return Op::kSpec.input_count; };
    o.output_type_count = [](const CustomOp*) -> size_t { return Op::kSpec.output_count; };
    o.input_arity = [](const CustomOp*, size_t index) {
      switch (Op::kSpec.inputs[index].presence) {
        case Presence::kOptional:
          return Arity::kOptional;
        case Presence::kVariadic:
          return Arity::kVariadic;
        default:
          return Arity::kRequired;
      }
    };
    o.output_arity = [](const CustomOp*, size_t) { return Arity::kRequired; };
    o.input_memory = [](const CustomOp*, size_t) { return int32_t{0}; };
    o.variadic_input_min = [](const CustomOp*) { return 0; };
    o.variadic_input_is_homogeneous = [](const CustomOp*) { return 1; };
    o.variadic_output_min = [](const CustomOp*) { return 0; };
    o.variadic_output_is_homogeneous = [](const CustomOp*) { return 1; };
    o.create_kernel_v2 = create_kernel<Op, kSignature>;
    o.compute_v2 = compute<Op, kSignature>;
    o.destroy = [](void* kernel) { delete static_cast<Kernel<Op, kSignature>*>(kernel); };
    o.infer_shape = infer_shape<Op>;
    o.start_version = [](const CustomOp*) -> int { return Op::kSpec.version; };
    o.end_version = [](const CustomOp*) -> int { return Op::kSpec.version; };
    return o;
  }();
  return &op;
}

// Adds the op once for each choice of types, or for the first alone.
template <class Op, size_t... kSignatures>
Status* add(const Functions& functions, CustomOpDomain* domain, bool is_first_only,
            std::index_sequence<kSignatures...>) {
  for (const CustomOp* op : {custom_op<Op, kSignatures>()...}) {
    if (Status* status = functions.custom_op_domain_add(domain, op)) return status;
    if (is_first_only) break;
  }
  return nullptr;
}

template <class Op>
Status* add(const Functions& functions, CustomOpDomain* domain, bool is_first_only) {
  return add<Op>(functions, domain, is_first_only,
                 std::make_index_sequence<Op::kSpec.signature_count>());
}

}  // namespace m2f::ort
