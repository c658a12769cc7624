#pragma once

#include "tensorrt/plugin.h"

// Makes plugins of one op: from a node of an ONNX file, from a saved engine, by hand.

namespace m2f::tensorrt {

template <class Op>
class Creator final : public nvinfer1::IPluginCreatorV3One {
 public:
  const char* getPluginName() const noexcept override { return Op::kSpec.name; }
  const char* getPluginVersion() const noexcept override { return version_.c_str(); }
  const char* getPluginNamespace() const noexcept override { return Op::kSpec.domain; }
  const nvinfer1::PluginFieldCollection* getFieldNames() noexcept override { return &offered_; }

  nvinfer1::IPluginV3* createPlugin(const char*, const nvinfer1::PluginFieldCollection* fields,
                                    nvinfer1::TensorRTPhase) noexcept override {
    AttributeValue values[kMaxAttributes];
    typename Op::Attributes attributes;
    if (!succeeded(read_fields(Op::kSpec, fields, values))) return nullptr;
    if (!succeeded(Op::read(values, &attributes))) return nullptr;
    try {
      return new Plugin<Op>(values, attributes);
    } catch (const std::exception& problem) {
      succeeded(error("%s: %s", Op::kSpec.name, problem.what()));
      return nullptr;
    }
  }

 private:
  std::string version_ = text_from(int64_t{Op::kSpec.version});
  std::array<nvinfer1::PluginField, kMaxAttributes> fields_ = offered_fields(Op::kSpec);
  nvinfer1::PluginFieldCollection offered_{Op::kSpec.attribute_count, fields_.data()};
};

}  // namespace m2f::tensorrt
