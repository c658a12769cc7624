#pragma once

#include <cstddef>
#include <cstdint>

// The part of ONNX Runtime's C ABI that is used here, by slot.
//
// Its wheels carry no headers. The ABI only ever grows at its end: OrtApi is a table of
// function pointers to which versions append, and OrtCustomOp says in its first field how much
// of it exists. So a library that asks for version 17 runs in onnxruntime 1.17 and everything
// newer. Source of slots and signatures: onnxruntime_c_api.h, API versions 17 to 29.

namespace m2f::ort {

constexpr uint32_t kApiVersion = 17;

struct Api;
struct AllocatorOpaque;
struct CustomOpDomain;
struct KernelContext;
struct KernelInfo;
struct SessionOptions;
struct ShapeInferContext;
struct Status;
struct TensorInfo;
struct Value;

enum class ErrorCode : int32_t { kFail = 1, kInvalidArgument = 2 };

enum class Element : int32_t {
  kFloat = 1,
  kUInt8 = 2,
  kInt8 = 3,
  kFloat16 = 10,
  kBFloat16 = 16
};

enum class Arity : int32_t { kRequired = 0, kOptional = 1, kVariadic = 2 };

struct ApiBase {
  const Api* (*get_api)(uint32_t version);
  const char* (*get_version)();
};

// The table of functions. Each is fetched by its slot, once, as what its signature says.
struct Functions {
  Status* (*create_status)(ErrorCode, const char* message);
  void (*release_status)(Status*);
  Status* (*create_custom_op_domain)(const char* name, CustomOpDomain** domain);
  Status* (*custom_op_domain_add)(CustomOpDomain*, const struct CustomOp*);
  Status* (*add_custom_op_domain)(SessionOptions*, CustomOpDomain*);
  Status* (*tensor_data)(Value*, void** data);
  Status* (*set_element_type)(TensorInfo*, Element);
  Status* (*set_dimensions)(TensorInfo*, const int64_t* dims, size_t count);
  Status* (*element_type)(const TensorInfo*, Element*);
  Status* (*rank)(const TensorInfo*, size_t*);
  Status* (*dimensions)(const TensorInfo*, int64_t* dims, size_t count);
  Status* (*axis_names)(const TensorInfo*, const char* names[], size_t count);
  Status* (*tensor_info)(const Value*, TensorInfo**);
  void (*release_tensor_info)(TensorInfo*);
  Status* (*attribute_float)(const KernelInfo*, const char* name, float*);
  Status* (*attribute_int)(const KernelInfo*, const char* name, int64_t*);
  Status* (*attribute_ints)(const KernelInfo*, const char* name, int64_t*, size_t* count);
  Status* (*constant_input)(const KernelInfo*, size_t index, int* is_constant, const Value**);
  Status* (*input_count)(const KernelContext*, size_t*);
  Status* (*input)(const KernelContext*, size_t index, const Value**);
  Status* (*output)(KernelContext*, size_t index, const int64_t* dims, size_t rank, Value**);
  Status* (*gpu_stream)(const KernelContext*, void** stream);
  Status* (*input_type_shape)(const ShapeInferContext*, size_t index, TensorInfo**);
  Status* (*set_output_type_shape)(const ShapeInferContext*, size_t index, const TensorInfo*);
  Status* (*set_axis_names)(TensorInfo*, const char* names[], size_t count);
  Status* (*parallel_for)(const KernelContext*, void (*task)(void* data, size_t index),
                          size_t count, size_t batches, void* data);

  explicit Functions(const Api* api) {
    const auto get = [api](auto& function, size_t slot) {
      const void* const* table = reinterpret_cast<const void* const*>(api);
      static_assert(sizeof function == sizeof *table, "function pointers are pointers");
      __builtin_memcpy(&function, table + slot, sizeof function);
    };
    get(create_status, 0);
    get(create_custom_op_domain, 26);
    get(custom_op_domain_add, 27);
    get(add_custom_op_domain, 28);
    get(tensor_data, 51);
    get(set_element_type, 58);
    get(set_dimensions, 59);
    get(element_type, 60);
    get(rank, 61);
    get(dimensions, 62);
    get(axis_names, 63);
    get(tensor_info, 65);
    get(attribute_float, 85);
    get(attribute_int, 86);
    get(input_count, 88);
    get(input, 90);
    get(output, 91);
    get(release_status, 93);
    get(release_tensor_info, 99);
    get(attribute_ints, 163);
    get(gpu_stream, 193);
    get(constant_input, 249);
    get(input_type_shape, 268);
    get(set_output_type_shape, 270);
    get(set_axis_names, 271);
    get(parallel_for, 274);
  }
};

// One custom op, as ONNX Runtime calls it. Fields past the version it says are not read.
struct CustomOp {
  uint32_t version;
  void* (*create_kernel)(const CustomOp*, const Api*, const KernelInfo*);
  const char* (*name)(const CustomOp*);
  const char* (*execution_provider)(const CustomOp*);
  Element (*input_type)(const CustomOp*, size_t index);
  size_t (*input_type_count)(const CustomOp*);
  Element (*output_type)(const CustomOp*, size_t index);
  size_t (*output_type_count)(const CustomOp*);
  void (*compute)(void* kernel, KernelContext*);
  void (*destroy)(void* kernel);
  Arity (*input_arity)(const CustomOp*, size_t index);
  Arity (*output_arity)(const CustomOp*, size_t index);
  int32_t (*input_memory)(const CustomOp*, size_t index);
  int (*variadic_input_min)(const CustomOp*);
  int (*variadic_input_is_homogeneous)(const CustomOp*);
  int (*variadic_output_min)(const CustomOp*);
  int (*variadic_output_is_homogeneous)(const CustomOp*);
  Status* (*create_kernel_v2)(const CustomOp*, const Api*, const KernelInfo*, void** kernel);
  Status* (*compute_v2)(void* kernel, KernelContext*);
  Status* (*infer_shape)(const CustomOp*, ShapeInferContext*);
  int (*start_version)(const CustomOp*);
  int (*end_version)(const CustomOp*);
  size_t (*may_inplace)(int** inputs, int** outputs);
  void (*release_may_inplace)(int* inputs, int* outputs);
  size_t (*alias_map)(int** inputs, int** outputs);
  void (*release_alias_map)(int* inputs, int* outputs);
};
static_assert(sizeof(void*) != 8 || sizeof(CustomOp) == 208, "as in onnxruntime_c_api.h");

}  // namespace m2f::ort
