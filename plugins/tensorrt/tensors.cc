#include "tensorrt/tensors.h"

#include <cinttypes>
#include <cstring>

namespace m2f::tensorrt {

using nvinfer1::DataType;

bool storage_from(DataType type, Storage* storage) {
  switch (type) {
    case DataType::kFLOAT:
      *storage = Storage::kFloat32;
      return true;
    case DataType::kHALF:
      *storage = Storage::kFloat16;
      return true;
    case DataType::kBF16:
      *storage = Storage::kBFloat16;
      return true;
    case DataType::kINT8:
      *storage = Storage::kInt8;
      return true;
    default:
      return false;
  }
}

DataType type_from(Storage storage) {
  switch (storage) {
    case Storage::kFloat16:
      return DataType::kHALF;
    case Storage::kBFloat16:
      return DataType::kBF16;
    case Storage::kInt8:
      return DataType::kINT8;
    case Storage::kUInt8:
      return DataType::kUINT8;
    default:
      return DataType::kFLOAT;
  }
}

bool begins_signature(const OpSpec& spec, const nvinfer1::DynamicPluginTensorDesc* tensors,
                      int32_t count, int32_t input_count) {
  for (int32_t s = 0; s < spec.signature_count; ++s) {
    bool agrees = true;
    for (int32_t i = 0; i < count && agrees; ++i) {
      const Storage expected =
          i < input_count ? spec.input_type(s, i) : spec.output_type(s, i - input_count);
      agrees = tensors[i].desc.type == type_from(expected);
    }
    if (agrees) return true;
  }
  return false;
}

int32_t signature_from(const OpSpec& spec, const DataType* types, int32_t count) {
  for (int32_t s = 0; s < spec.signature_count; ++s) {
    int32_t i = 0;
    while (i < count && types[i] == type_from(spec.input_type(s, i))) ++i;
    if (i == count) return s;
  }
  return -1;
}

Status check_counts(const OpSpec& spec, int32_t inputs, int32_t outputs) {
  const int32_t most = spec.is_variadic() ? kMaxInputs : spec.required_inputs();
  if (inputs < spec.required_inputs() || inputs > most) {
    return error("%s: takes %d to %d inputs, got %d", spec.name, spec.required_inputs(), most,
                 inputs);
  }
  if (outputs != spec.output_count) {
    return error("%s: has %d outputs, got %d", spec.name, spec.output_count, outputs);
  }
  return {};
}

namespace {

Status check_rank(const OpSpec& spec, int32_t index, int32_t axes) {
  const TensorSpec& tensor = spec.input(index);
  if (axes == tensor.rank()) return {};
  return error("%s: %s has %d axes, expected %d", spec.name, tensor.name, axes, tensor.rank());
}

}  // namespace

Status check_ranks(const OpSpec& spec, const nvinfer1::DimsExprs* inputs, int32_t count) {
  for (int32_t i = 0; i < count; ++i) {
    const Status status = check_rank(spec, i, inputs[i].nbDims);
    if (!status.ok()) return status;
  }
  return {};
}

Status view_from(const OpSpec& spec, int32_t index, const nvinfer1::Dims& dims, DataType type,
                 TensorView* view) {
  const TensorSpec& tensor = spec.input(index);
  const Status status = check_rank(spec, index, dims.nbDims);
  if (!status.ok()) return status;
  if (!storage_from(type, &view->type)) {
    return error("%s: %s has data type %d, which the op does not take", spec.name, tensor.name,
                 static_cast<int>(type));
  }
  view->data = nullptr;
  for (int32_t axis = 0; axis < dims.nbDims; ++axis) view->dims[axis] = dims.d[axis];
  return {};
}

Status views_from(const OpSpec& spec, const nvinfer1::PluginTensorDesc* tensors, int32_t count,
                  TensorView views[]) {
  for (int32_t i = 0; i < count; ++i) {
    const Status status = view_from(spec, i, tensors[i].dims, tensors[i].type, &views[i]);
    if (!status.ok()) return status;
  }
  return {};
}

Status check_axes(const OpSpec& spec, const TensorView views[], int32_t input_count) {
  int64_t size[128];            // by letter
  const char* where[128] = {};  // the first tensor that has the axis at a known size
  for (int32_t i = 0; i < input_count; ++i) {
    const TensorSpec& tensor = spec.input(i);
    if (tensor.is_variadic()) break;  // their axes differ from tensor to tensor
    for (int32_t axis = 0; axis < tensor.rank(); ++axis) {
      const int letter = tensor.axes[axis] & 127;
      const int64_t length = views[i].dims[axis];
      if (length < 0) continue;
      if (where[letter] == nullptr) {
        size[letter] = length;
        where[letter] = tensor.name;
      } else if (length != size[letter]) {
        return error("%s: axis %c is %" PRId64 " in %s, but %" PRId64 " in %s", spec.name,
                     letter, length, tensor.name, size[letter], where[letter]);
      }
    }
  }
  return {};
}

void shape_from(const OpSpec& spec, const nvinfer1::DimsExprs* inputs, int32_t output,
                nvinfer1::DimsExprs* shape) {
  const TensorSpec& tensor = spec.outputs[output];
  shape->nbDims = tensor.rank();
  for (int32_t axis = 0; axis < tensor.rank(); ++axis) {
    for (int32_t i = spec.required_inputs() - 1; i >= 0; --i) {
      const char* found = std::strchr(spec.inputs[i].axes, tensor.axes[axis]);
      if (found != nullptr) shape->d[axis] = inputs[i].d[found - spec.inputs[i].axes];
    }
  }
}

}  // namespace m2f::tensorrt
