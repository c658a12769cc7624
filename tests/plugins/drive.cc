// Plays TensorRT: takes the plugins through every method of IPluginV3 as the builder and the
// runtime would, with tensors that are only described. Functions have C's names for ctypes.

#include <NvInferRuntime.h>

#include <cstdio>
#include <cstring>
#include <deque>
#include <string>

extern "C" void setLoggerFinder(nvinfer1::ILoggerFinder* finder);
extern "C" nvinfer1::IPluginCreatorInterface* const* getCreators(int32_t& count);

namespace {

using namespace nvinfer1;

struct Logger final : ILogger {
  std::string text;
  void log(Severity severity, const char* message) noexcept override {
    text += std::to_string(static_cast<int>(severity)) + ": " + message + "\n";
  }
};

struct Finder final : ILoggerFinder {
  Logger logger;
  ILogger* findLogger() override { return &logger; }
};

// An expression that is a number; -1 is a size only known later.
class Size final : public IDimensionExpr {
 public:
  explicit Size(int64_t value) : value_(value) { mImpl = &value_; }

 private:
  struct Value final : apiv::VDimensionExpr {
    int64_t number;
    explicit Value(int64_t n) : number(n) {}
    bool isConstant() const override { return number >= 0; }
    int64_t getConstantValue() const override { return number; }
    bool isSizeTensor() const override { return false; }
  };
  Value value_;
};

class Builder final : public IExprBuilder {};

Finder finder;

Dims dims_from(const int64_t* sizes, int32_t rank) {
  Dims dims{};
  dims.nbDims = rank;
  for (int32_t i = 0; i < rank; ++i) dims.d[i] = sizes[i];
  return dims;
}

// Tensors as Python gives them: for each a rank, a type, a format and 8 sizes.
struct Tensor {
  int32_t rank;
  int32_t type;
  int32_t format;
  int64_t least[8];
  int64_t most[8];
};

PluginTensorDesc desc_from(const Tensor& t, const int64_t* sizes) {
  return {dims_from(sizes, t.rank), static_cast<DataType>(t.type),
          static_cast<TensorFormat>(t.format), -1.0f};
}

// A size that the two bounds disagree about is unknown to the description.
DynamicPluginTensorDesc dynamic_from(const Tensor& t) {
  DynamicPluginTensorDesc tensor{desc_from(t, t.most), dims_from(t.least, t.rank),
                                 dims_from(t.most, t.rank), dims_from(t.most, t.rank)};
  for (int32_t i = 0; i < t.rank; ++i) {
    if (t.least[i] != t.most[i]) tensor.desc.dims.d[i] = -1;
  }
  return tensor;
}

template <class Interface>
Interface* part_of(void* plugin, PluginCapabilityType type) {
  return static_cast<Interface*>(static_cast<IPluginV3*>(plugin)->getCapabilityInterface(type));
}
IPluginV3OneCore* core(void* plugin) {
  return part_of<IPluginV3OneCore>(plugin, PluginCapabilityType::kCORE);
}
IPluginV3OneBuild* build(void* plugin) {
  return part_of<IPluginV3OneBuild>(plugin, PluginCapabilityType::kBUILD);
}
IPluginV3OneRuntime* runtime(void* plugin) {
  return part_of<IPluginV3OneRuntime>(plugin, PluginCapabilityType::kRUNTIME);
}

constexpr int32_t kMost = 24;  // tensors of one call

std::string text_from(const PluginFieldCollection& fields, bool with_values) {
  std::string text;
  for (int32_t i = 0; i < fields.nbFields; ++i) {
    const PluginField& f = fields.fields[i];
    text += std::string(" ") + f.name + ":" + std::to_string(static_cast<int>(f.type));
    if (!with_values) continue;
    for (int32_t k = 0; k < f.length; ++k) {
      const bool is_float = f.type == PluginFieldType::kFLOAT32;
      text += (k == 0 ? "=" : ",") +
              (is_float ? std::to_string(static_cast<const float*>(f.data)[k])
                        : std::to_string(static_cast<const int64_t*>(f.data)[k]));
    }
  }
  return text;
}

int32_t give(const std::string& text, char* to, int32_t room) {
  std::snprintf(to, static_cast<size_t>(room), "%s", text.c_str());
  return static_cast<int32_t>(text.size());
}

}  // namespace

#define M2F_TEST extern "C" __attribute__((visibility("default")))

// One line a creator: name, version, namespace, fields with their types.
M2F_TEST int32_t drive_creators(char* text, int32_t room) {
  setLoggerFinder(&finder);
  int32_t count = 0;
  IPluginCreatorInterface* const* creators = getCreators(count);
  std::string all;
  for (int32_t i = 0; i < count; ++i) {
    auto* creator = static_cast<IPluginCreatorV3One*>(creators[i]);
    all += std::string(creator->getPluginName()) + " " + creator->getPluginVersion() + " " +
           creator->getPluginNamespace() + text_from(*creator->getFieldNames(), false) + "\n";
  }
  return give(all, text, room);
}

M2F_TEST void* drive_create(const char* name, int32_t count, const char* const* names,
                            const int32_t* types, const void* const* data,
                            const int32_t* lengths, int32_t phase) {
  int32_t creator_count = 0;
  IPluginCreatorInterface* const* creators = getCreators(creator_count);
  std::deque<PluginField> fields;
  PluginField given[kMost];
  for (int32_t i = 0; i < count; ++i) {
    given[i] = {names[i], data[i], static_cast<PluginFieldType>(types[i]), lengths[i]};
  }
  const PluginFieldCollection collection{count, given};
  for (int32_t i = 0; i < creator_count; ++i) {
    auto* creator = static_cast<IPluginCreatorV3One*>(creators[i]);
    if (std::strcmp(creator->getPluginName(), name) != 0) continue;
    return creator->createPlugin("layer", &collection, static_cast<TensorRTPhase>(phase));
  }
  return nullptr;
}

// A plugin from what this one saves, as an engine does that is loaded.
M2F_TEST void* drive_saved(void* plugin) {
  int32_t count = 0;
  IPluginCreatorInterface* const* creators = getCreators(count);
  for (int32_t i = 0; i < count; ++i) {
    auto* creator = static_cast<IPluginCreatorV3One*>(creators[i]);
    if (std::strcmp(creator->getPluginName(), core(plugin)->getPluginName()) != 0) continue;
    return creator->createPlugin("layer", runtime(plugin)->getFieldsToSerialize(),
                                 TensorRTPhase::kRUNTIME);
  }
  return nullptr;
}

M2F_TEST void* drive_clone(void* plugin) { return static_cast<IPluginV3*>(plugin)->clone(); }
M2F_TEST void* drive_attach(void* plugin) { return runtime(plugin)->attachToContext(nullptr); }
M2F_TEST void drive_delete(void* plugin) { delete static_cast<IPluginV3*>(plugin); }

// Everything a plugin says of itself.
M2F_TEST int32_t drive_identity(void* plugin, char* text, int32_t room) {
  return give(std::string(core(plugin)->getPluginName()) + " " +
                  core(plugin)->getPluginVersion() + " " + core(plugin)->getPluginNamespace() +
                  " | " + build(plugin)->getMetadataString() + " | " +
                  build(plugin)->getTimingCacheID() + " |" +
                  text_from(*runtime(plugin)->getFieldsToSerialize(), true),
              text, room);
}

M2F_TEST int32_t drive_take_log(char* text, int32_t room) {
  const int32_t size = give(finder.logger.text, text, room);
  finder.logger.text.clear();
  return size;
}

// What TensorRT asks of the build capability.

M2F_TEST int32_t drive_outputs(void* plugin) { return build(plugin)->getNbOutputs(); }

M2F_TEST int32_t drive_supports(void* plugin, const Tensor* tensors, int32_t inputs,
                                int32_t outputs, int32_t position) {
  DynamicPluginTensorDesc all[kMost];
  for (int32_t i = 0; i < inputs + outputs; ++i) all[i] = dynamic_from(tensors[i]);
  return build(plugin)->supportsFormatCombination(position, all, inputs, outputs);
}

M2F_TEST int32_t drive_output_type(void* plugin, const Tensor* tensors, int32_t inputs,
                                   int32_t* type) {
  DataType given[kMost];
  DataType found[1];
  for (int32_t i = 0; i < inputs; ++i) given[i] = static_cast<DataType>(tensors[i].type);
  const int32_t code = build(plugin)->getOutputDataTypes(found, 1, given, inputs);
  *type = static_cast<int32_t>(found[0]);
  return code;
}

// Sizes of the output: those of the inputs, handed on as expressions.
M2F_TEST int32_t drive_output_shape(void* plugin, const Tensor* tensors, int32_t inputs,
                                    int64_t sizes[8], int32_t* rank) {
  std::deque<Size> expressions;
  DimsExprs given[kMost];
  for (int32_t i = 0; i < inputs; ++i) {
    given[i].nbDims = tensors[i].rank;
    const Dims dims = dynamic_from(tensors[i]).desc.dims;
    for (int32_t axis = 0; axis < tensors[i].rank; ++axis) {
      given[i].d[axis] = &expressions.emplace_back(dims.d[axis]);
    }
  }
  Builder builder;
  DimsExprs output;
  const int32_t code =
      build(plugin)->getOutputShapes(given, inputs, nullptr, 0, &output, 1, builder);
  if (code != 0) return code;
  *rank = output.nbDims;
  for (int32_t axis = 0; axis < output.nbDims; ++axis) {
    sizes[axis] = output.d[axis]->getConstantValue();
  }
  return code;
}

M2F_TEST int32_t drive_configure(void* plugin, const Tensor* tensors, int32_t inputs,
                                 int32_t outputs) {
  DynamicPluginTensorDesc all[kMost];
  for (int32_t i = 0; i < inputs + outputs; ++i) all[i] = dynamic_from(tensors[i]);
  return build(plugin)->configurePlugin(all, inputs, all + inputs, outputs);
}

M2F_TEST int64_t drive_workspace(void* plugin, const Tensor* tensors, int32_t inputs,
                                 int32_t outputs) {
  DynamicPluginTensorDesc all[kMost];
  for (int32_t i = 0; i < inputs + outputs; ++i) all[i] = dynamic_from(tensors[i]);
  return static_cast<int64_t>(
      build(plugin)->getWorkspaceSize(all, inputs, all + inputs, outputs));
}

M2F_TEST int32_t drive_tactics(void* plugin, int32_t tactics[kMost]) {
  const int32_t count = build(plugin)->getNbTactics();
  return build(plugin)->getValidTactics(tactics, count) == 0 ? count : -1;
}

// And of the runtime capability.

M2F_TEST int32_t drive_set_tactic(void* plugin, int32_t tactic) {
  return runtime(plugin)->setTactic(tactic);
}

M2F_TEST int32_t drive_shape_change(void* plugin, const Tensor* tensors, int32_t inputs,
                                    int32_t outputs) {
  PluginTensorDesc all[kMost];
  for (int32_t i = 0; i < inputs + outputs; ++i)
    all[i] = desc_from(tensors[i], tensors[i].most);
  return runtime(plugin)->onShapeChange(all, inputs, all + inputs, outputs);
}

// As many inputs as either op reads; the others are only described.
M2F_TEST int32_t drive_enqueue(void* plugin, const void* a, const void* b, const void* c,
                               const void* d, void* output, void* workspace) {
  const void* const inputs[kMost] = {a, b, c, d};
  void* const outputs[] = {output};
  return runtime(plugin)->enqueue(nullptr, nullptr, inputs, outputs, workspace, nullptr);
}
