#pragma once

#include <NvInferRuntime.h>

#include <algorithm>
#include <cinttypes>
#include <exception>
#include <string>

#include "tensorrt/fields.h"
#include "tensorrt/log.h"
#include "tensorrt/tensors.h"

// An op as a TensorRT layer, from its traits (common/cuda/ops.h). What every op needs is here,
// once: the three interfaces of IPluginV3, types and formats, dynamic shapes, tactics,
// workspace, serialisation, errors. Methods run on TensorRT's threads and never throw; a
// failure is logged as one sentence and reported by its return value.
//
// Not here: mathematics, and what sizes an op accepts (Op::plan).

namespace m2f::tensorrt {

constexpr int32_t kOk = 0;
constexpr int32_t kFailed = -1;

// Not std::to_string: its digits would be a symbol that the library shows.
std::string text_from(int64_t number);

// "heads=8 value_scale=0.5": what a plugin was made from, for profilers and timing caches.
std::string text_from(const OpSpec& spec, const AttributeValue values[]);

template <class Op>
class Plugin final : public nvinfer1::IPluginV3,
                     public nvinfer1::IPluginV3OneCore,
                     public nvinfer1::IPluginV3OneBuild,
                     public nvinfer1::IPluginV3OneRuntime {
 public:
  using Attributes = typename Op::Attributes;
  using DynamicDesc = nvinfer1::DynamicPluginTensorDesc;
  using Desc = nvinfer1::PluginTensorDesc;

  Plugin(const AttributeValue values[], const Attributes& attributes)
      : fields_(kSpec, values),
        attributes_(attributes),
        version_(text_from(int64_t{kSpec.version})),
        text_(text_from(kSpec, values)) {}

  // IPluginV3
  nvinfer1::IPluginCapability* getCapabilityInterface(
      nvinfer1::PluginCapabilityType type) noexcept override {
    switch (type) {
      case nvinfer1::PluginCapabilityType::kCORE:
        return static_cast<nvinfer1::IPluginV3OneCore*>(this);
      case nvinfer1::PluginCapabilityType::kBUILD:
        return static_cast<nvinfer1::IPluginV3OneBuild*>(this);
      case nvinfer1::PluginCapabilityType::kRUNTIME:
        return static_cast<nvinfer1::IPluginV3OneRuntime*>(this);
    }
    return nullptr;
  }

  nvinfer1::IPluginV3* clone() noexcept override {
    try {
      auto* copy = new Plugin(fields_.values(), attributes_);
      copy->plan_ = plan_;
      copy->tactic_ = tactic_;
      return copy;
    } catch (const std::exception& problem) {
      succeeded(error("%s: %s", kSpec.name, problem.what()));
      return nullptr;
    }
  }

  // IPluginV3OneCore
  const char* getPluginName() const noexcept override { return kSpec.name; }
  const char* getPluginVersion() const noexcept override { return version_.c_str(); }
  const char* getPluginNamespace() const noexcept override { return kSpec.domain; }

  // IPluginV3OneBuild
  int32_t getNbOutputs() const noexcept override { return kSpec.output_count; }

  bool supportsFormatCombination(int32_t pos, const DynamicDesc* tensors, int32_t inputs,
                                 int32_t outputs) noexcept override {
    return check_counts(kSpec, inputs, outputs).ok() &&
           tensors[pos].desc.format == nvinfer1::TensorFormat::kLINEAR &&
           begins_signature(kSpec, tensors, pos + 1, inputs);
  }

  int32_t getOutputDataTypes(nvinfer1::DataType* output, int32_t outputs,
                             const nvinfer1::DataType* input,
                             int32_t inputs) const noexcept override {
    if (!succeeded(check_counts(kSpec, inputs, outputs))) return kFailed;
    const int32_t signature = signature_from(kSpec, input, inputs);
    if (signature < 0) {
      succeeded(error("%s: takes no inputs of data types %d, %d, ...; see its op.toml",
                      kSpec.name, static_cast<int>(input[0]), static_cast<int>(input[1])));
      return kFailed;
    }
    for (int32_t i = 0; i < outputs; ++i)
      output[i] = type_from(kSpec.output_type(signature, i));
    return kOk;
  }

  int32_t getOutputShapes(const nvinfer1::DimsExprs* inputs, int32_t input_count,
                          const nvinfer1::DimsExprs*, int32_t, nvinfer1::DimsExprs* outputs,
                          int32_t output_count, nvinfer1::IExprBuilder&) noexcept override {
    if (!succeeded(check_counts(kSpec, input_count, output_count))) return kFailed;
    if (!succeeded(check_ranks(kSpec, inputs, input_count))) return kFailed;
    for (int32_t i = 0; i < output_count; ++i) shape_from(kSpec, inputs, i, &outputs[i]);
    return kOk;
  }

  // Sizes that are still open are checked when they are known, by onShapeChange.
  int32_t configurePlugin(const DynamicDesc* in, int32_t inputs, const DynamicDesc*,
                          int32_t outputs) noexcept override {
    if (!succeeded(check_counts(kSpec, inputs, outputs))) return kFailed;
    TensorView views[kMaxInputs];
    bool is_static = true;
    for (int32_t i = 0; i < inputs; ++i) {
      const nvinfer1::Dims& dims = in[i].desc.dims;
      if (!succeeded(view_from(kSpec, i, dims, in[i].desc.type, &views[i]))) return kFailed;
      is_static &= std::all_of(dims.d, dims.d + dims.nbDims, [](auto d) { return d >= 0; });
    }
    if (!is_static) return succeeded(check_axes(kSpec, views, inputs)) ? kOk : kFailed;
    return succeeded(Op::plan(attributes_, views, inputs, &plan_)) ? kOk : kFailed;
  }

  size_t getWorkspaceSize(const DynamicDesc* in, int32_t inputs, const DynamicDesc*,
                          int32_t outputs) const noexcept override {
    TensorView largest[kMaxInputs];
    if (!succeeded(check_counts(kSpec, inputs, outputs))) return 0;
    for (int32_t i = 0; i < inputs; ++i) {
      if (!succeeded(view_from(kSpec, i, in[i].max, in[i].desc.type, &largest[i]))) return 0;
    }
    return Op::workspace_bytes(attributes_, largest);
  }

  int32_t getNbTactics() noexcept override { return Op::kTactics; }

  int32_t getValidTactics(int32_t* tactics, int32_t count) noexcept override {
    for (int32_t i = 0; i < count; ++i) tactics[i] = i + 1;  // 0 is TensorRT's "none chosen"
    return kOk;
  }

  const char* getTimingCacheID() noexcept override { return text_.c_str(); }
  const char* getMetadataString() noexcept override { return text_.c_str(); }

  // IPluginV3OneRuntime
  int32_t setTactic(int32_t tactic) noexcept override {
    if (tactic < 0 || tactic > Op::kTactics) {
      succeeded(error("%s: has tactics 0 to %d, got %d", kSpec.name, Op::kTactics, tactic));
      return kFailed;
    }
    tactic_ = tactic;
    return kOk;
  }

  int32_t onShapeChange(const Desc* in, int32_t inputs, const Desc*,
                        int32_t outputs) noexcept override {
    TensorView views[kMaxInputs];
    return succeeded(check_counts(kSpec, inputs, outputs)) &&
                   succeeded(views_from(kSpec, in, inputs, views)) &&
                   succeeded(Op::plan(attributes_, views, inputs, &plan_))
               ? kOk
               : kFailed;
  }

  int32_t enqueue(const Desc*, const Desc*, const void* const* inputs, void* const* outputs,
                  void* workspace, cudaStream_t stream) noexcept override {
    const cudaError_t code = Op::run(plan_, tactic_, inputs, outputs[0], workspace, stream);
    if (code == cudaSuccess) return kOk;
    succeeded(error("%s: CUDA error %d: %s", kSpec.name, static_cast<int>(code),
                    cudaGetErrorString(code)));
    return kFailed;
  }

  nvinfer1::IPluginV3* attachToContext(nvinfer1::IPluginResourceContext*) noexcept override {
    return clone();
  }

  const nvinfer1::PluginFieldCollection* getFieldsToSerialize() noexcept override {
    return fields_.collection();
  }

 private:
  static constexpr const OpSpec& kSpec = Op::kSpec;
  static_assert(Op::kSpec.output_count == 1, "Op::run writes one output");

  const SavedFields fields_;
  const Attributes attributes_;
  const std::string version_;
  const std::string text_;
  typename Op::Plan plan_{};  // of the latest shapes
  int32_t tactic_ = 0;
};

}  // namespace m2f::tensorrt
