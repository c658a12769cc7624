#pragma once

#include <exception>
#include <new>

#include "common/kernels.h"
#include "common/parallel.h"
#include "common/status.h"
#include "common/storage.h"
#include "ort/ort_abi.h"

// An op for ONNX Runtime, from its traits. What every op needs is here, once: types, shape
// inference, threads, errors. Traits give
//
//   kName, kInputs, kIsVariadic    as in op.toml; the last input is the variadic one
//   Attributes                     with static Status read(const AttributeReader&, Attributes*)
//   static Status run(const Attributes&, const Call&)
//
// All tensors of an op share one storage type, and its output has the shape of its first input.

namespace m2f::ort {

// The strongest promise this library makes: no exception leaves it.
inline Status* fail(const Functions& functions, const m2f::Status& status) {
  return status.ok() ? nullptr
                     : functions.create_status(ErrorCode::kInvalidArgument, status.text);
}

class AttributeReader {
 public:
  AttributeReader(const Functions& functions, const KernelInfo* info)
      : functions_(functions), info_(info) {}

  // Whether the node has it.
  bool get(const char* name, int64_t* value) const {
    return succeeded(functions_.attribute_int(info_, name, value));
  }

  // Reads at most `capacity`; `count` becomes the number it has, 0 where it is absent.
  bool get(const char* name, int64_t* values, size_t capacity, size_t* count) const {
    *count = 0;
    if (!succeeded(functions_.attribute_ints(info_, name, nullptr, count))) {
      *count = 0;
      return false;
    }
    size_t room = *count;
    return room <= capacity && succeeded(functions_.attribute_ints(info_, name, values, &room));
  }

 private:
  bool succeeded(Status* status) const {
    if (status != nullptr) functions_.release_status(status);
    return status == nullptr;
  }

  const Functions& functions_;
  const KernelInfo* info_;
};

constexpr size_t kMaxRank = 4;
constexpr size_t kMaxInputs = 16;

struct Tensor {
  const void* data;
  Element element;
  size_t rank;
  int64_t dims[kMaxRank];
};

// One run of a node.
struct Call {
  Tensor input[kMaxInputs];
  size_t inputs;
  Storage storage;
  void* output;  // as large as the first input
  Parallel parallel;
};

inline bool storage_from(Element element, Storage* storage) {
  switch (element) {
    case Element::kFloat:
      *storage = Storage::kFloat32;
      return true;
    case Element::kFloat16:
      *storage = Storage::kFloat16;
      return true;
    case Element::kBFloat16:
      *storage = Storage::kBFloat16;
      return true;
    default:
      return false;
  }
}

template <class Op>
class Kernel {
 public:
  Kernel(const Api* api, const KernelInfo* info) : functions_(api) {
    status_ = Op::read(AttributeReader(functions_, info), &attributes_);
  }

  const m2f::Status& status() const { return status_; }
  const Functions& functions() const { return functions_; }

  Status* compute(KernelContext* context) const {
    Call call;
    if (Status* status = functions_.input_count(context, &call.inputs)) return status;
    if (call.inputs < Op::kInputs || call.inputs > kMaxInputs) {
      return fail(functions_,
                  error("%s: takes %zu inputs, got %zu", Op::kName, Op::kInputs, call.inputs));
    }
    for (size_t i = 0; i < call.inputs; ++i) {
      if (Status* status = read(context, i, i < Op::kInputs ? 3 : 4, &call.input[i])) {
        return status;
      }
    }
    for (size_t i = 0; i < Op::kInputs; ++i) {
      if (call.input[i].element != call.input[0].element) {
        return fail(functions_, error("%s: input %zu has element type %d, but input 0 has %d",
                                      Op::kName, i, static_cast<int>(call.input[i].element),
                                      static_cast<int>(call.input[0].element)));
      }
    }
    if (!storage_from(call.input[0].element, &call.storage)) {
      return fail(functions_, error("%s: takes float, float16 or bfloat16, got element type %d",
                                    Op::kName, static_cast<int>(call.input[0].element)));
    }
    Value* output = nullptr;
    const Tensor& first = call.input[0];
    if (Status* status = functions_.output(context, 0, first.dims, first.rank, &output)) {
      return status;
    }
    if (Status* status = functions_.tensor_data(output, &call.output)) return status;
    Pool pool = {functions_, context};
    call.parallel = {Pool::for_each, &pool};
    return fail(functions_, Op::run(attributes_, call));
  }

 private:
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

  Status* read(KernelContext* context, size_t index, size_t rank, Tensor* tensor) const {
    const Value* value = nullptr;
    if (Status* status = functions_.input(context, index, &value)) return status;
    TensorInfo* info = nullptr;
    if (Status* status = functions_.tensor_info(value, &info)) return status;
    Status* status = functions_.element_type(info, &tensor->element);
    if (status == nullptr) status = functions_.rank(info, &tensor->rank);
    if (status == nullptr && tensor->rank != rank) {
      status = fail(functions_, error("%s: input %zu has %zu axes, expected %zu", Op::kName,
                                      index, tensor->rank, rank));
    }
    if (status == nullptr) status = functions_.dimensions(info, tensor->dims, rank);
    functions_.release_tensor_info(info);
    if (status != nullptr) return status;
    void* data = nullptr;
    status = functions_.tensor_data(const_cast<Value*>(value), &data);
    tensor->data = data;
    return status;
  }

  Functions functions_;
  typename Op::Attributes attributes_{};
  m2f::Status status_;
};

template <class Op>
Status* create_kernel(const CustomOp*, const Api* api, const KernelInfo* info, void** kernel) {
  *kernel = nullptr;
  const Functions functions(api);
  try {
    auto* made = new Kernel<Op>(api, info);
    if (made->status().ok()) {
      *kernel = made;
      return nullptr;
    }
    Status* status = fail(functions, made->status());
    delete made;
    return status;
  } catch (const std::exception& problem) {
    return fail(functions, error("%s: %s", Op::kName, problem.what()));
  }
}

template <class Op>
Status* compute(void* kernel, KernelContext* context) {
  const auto& self = *static_cast<const Kernel<Op>*>(kernel);
  try {
    return self.compute(context);
  } catch (const std::exception& problem) {
    return fail(self.functions(), error("%s: %s", Op::kName, problem.what()));
  }
}

// Filled once, when the library is registered; shape inference gets no table of its own.
inline const Api*& registered_api() {
  static const Api* api = nullptr;
  return api;
}

inline Status* infer_shape(const CustomOp*, ShapeInferContext* context) {
  const Functions functions(registered_api());
  TensorInfo* first = nullptr;  // owned by the context
  if (Status* status = functions.input_type_shape(context, 0, &first)) return status;
  return functions.set_output_type_shape(context, 0, first);
}

// One per storage type, all of one name: ONNX Runtime picks by the types of a node's inputs.
// ("Any type" is allowed for one input only before onnxruntime 1.19.)
template <class Op, Element kElement>
const CustomOp* custom_op() {
  static const CustomOp op = [] {
    CustomOp o{};
    o.version = kApiVersion;
    o.name = [](const CustomOp*) { return Op::kName; };
    o.execution_provider = [](const CustomOp*) -> const char* { return nullptr; };  // the CPU's
    o.input_type = [](const CustomOp*, size_t) { return kElement; };
    o.output_type = [](const CustomOp*, size_t) { return kElement; };
    o.input_type_count = [](const CustomOp*) { return Op::kInputs + Op::kIsVariadic; };
    o.output_type_count = [](const CustomOp*) { return size_t{1}; };
    o.input_arity = [](const CustomOp*, size_t index) {
      return index < Op::kInputs ? Arity::kRequired : Arity::kVariadic;
    };
    o.output_arity = [](const CustomOp*, size_t) { return Arity::kRequired; };
    o.input_memory = [](const CustomOp*, size_t) { return int32_t{0}; };
    o.variadic_input_min = [](const CustomOp*) { return 0; };
    o.variadic_input_is_homogeneous = [](const CustomOp*) { return 1; };
    o.variadic_output_min = [](const CustomOp*) { return 0; };
    o.variadic_output_is_homogeneous = [](const CustomOp*) { return 1; };
    o.create_kernel_v2 = create_kernel<Op>;
    o.compute_v2 = compute<Op>;
    o.destroy = [](void* kernel) { delete static_cast<Kernel<Op>*>(kernel); };
    o.infer_shape = infer_shape;
    o.start_version = [](const CustomOp*) { return 1; };
    o.end_version = [](const CustomOp*) { return 1; };
    return o;
  }();
  return &op;
}

}  // namespace m2f::ort
