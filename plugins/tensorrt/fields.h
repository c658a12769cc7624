#pragma once

#include <NvInferRuntime.h>

#include <array>

#include "common/op_spec.h"

// An op's attributes as plugin fields: what a creator offers, what a node or a saved engine
// gives, what an engine saves.

namespace m2f::tensorrt {

// The fields that a creator reads, without values. Integers are offered as int32, which is what
// the ONNX parser makes of them.
std::array<nvinfer1::PluginField, kMaxAttributes> offered_fields(const OpSpec& spec);

// Reads `fields` into `values`, in the order of the op's attributes, defaults filled in. Takes
// int32 and int64 alike.
Status read_fields(const OpSpec& spec, const nvinfer1::PluginFieldCollection* fields,
                   AttributeValue values[]);

// A plugin's attributes, and the fields that point into them; so it is not copied.
class SavedFields {
 public:
  SavedFields(const OpSpec& spec, const AttributeValue values[]);
  SavedFields(const SavedFields&) = delete;
  SavedFields& operator=(const SavedFields&) = delete;

  const AttributeValue* values() const { return values_.data(); }
  const nvinfer1::PluginFieldCollection* collection() const { return &collection_; }

 private:
  std::array<AttributeValue, kMaxAttributes> values_;
  std::array<nvinfer1::PluginField, kMaxAttributes> fields_;
  nvinfer1::PluginFieldCollection collection_{};
};

}  // namespace m2f::tensorrt
