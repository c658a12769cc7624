#pragma once

#include <NvInferRuntime.h>

#include "common/op_spec.h"

// TensorRT's tensors in the words of an op's description. Everything here follows from OpSpec;
// none of it knows an op.

namespace m2f::tensorrt {

// False for types that no op has.
bool storage_from(nvinfer1::DataType type, Storage* storage);
nvinfer1::DataType type_from(Storage storage);

// Whether the types of the first `count` tensors, inputs before outputs, begin one of the op's
// signatures.
bool begins_signature(const OpSpec& spec, const nvinfer1::DynamicPluginTensorDesc* tensors,
                      int32_t count, int32_t input_count);

// The signature these inputs call; -1 where there is none.
int32_t signature_from(const OpSpec& spec, const nvinfer1::DataType* types, int32_t count);

// Checks the number of inputs and outputs.
Status check_counts(const OpSpec& spec, int32_t inputs, int32_t outputs);

Status check_ranks(const OpSpec& spec, const nvinfer1::DimsExprs* inputs, int32_t count);

// Describes inputs; says which has the wrong rank or a type of no op.
Status views_from(const OpSpec& spec, const nvinfer1::PluginTensorDesc* tensors, int32_t count,
                  TensorView views[]);
Status view_from(const OpSpec& spec, int32_t index, const nvinfer1::Dims& dims,
                 nvinfer1::DataType type, TensorView* view);

// Says which two tensors disagree about an axis, where both sizes are known already (not -1).
Status check_axes(const OpSpec& spec, const TensorView views[], int32_t input_count);

// The shape of an output, axis by axis from the inputs that have them.
void shape_from(const OpSpec& spec, const nvinfer1::DimsExprs* inputs, int32_t output,
                nvinfer1::DimsExprs* shape);

}  // namespace m2f::tensorrt
