// A TensorRT plugin library that loads another, named by M2F_SPIED, and writes down what its
// creators make: the attributes a plugin holds after TensorRT's parser has created it.

#include <NvInferRuntime.h>
#include <dlfcn.h>

#include <cstdio>
#include <cstdlib>

namespace {

using namespace nvinfer1;

class Spy final : public IPluginCreatorV3One {
 public:
  IPluginCreatorV3One* spied = nullptr;

  const char* getPluginName() const noexcept override { return spied->getPluginName(); }
  const char* getPluginVersion() const noexcept override { return spied->getPluginVersion(); }
  const char* getPluginNamespace() const noexcept override {
    return spied->getPluginNamespace();
  }
  const PluginFieldCollection* getFieldNames() noexcept override {
    return spied->getFieldNames();
  }
  IPluginV3* createPlugin(const char* name, const PluginFieldCollection* fields,
                          TensorRTPhase phase) noexcept override {
    IPluginV3* plugin = spied->createPlugin(name, fields, phase);
    if (plugin == nullptr) return nullptr;
    auto* build = static_cast<IPluginV3OneBuild*>(
        plugin->getCapabilityInterface(PluginCapabilityType::kBUILD));
    std::printf("created %s: %s\n", getPluginName(), build->getMetadataString());
    std::fflush(stdout);
    return plugin;
  }
};

}  // namespace

#define M2F_TEST extern "C" __attribute__((visibility("default")))

M2F_TEST void setLoggerFinder(ILoggerFinder*) {}

M2F_TEST IPluginCreatorInterface* const* getCreators(int32_t& count) {
  static Spy spies[8];
  static IPluginCreatorInterface* creators[8];
  using Get = IPluginCreatorInterface* const* (*)(int32_t&);
  void* library = dlopen(std::getenv("M2F_SPIED"), RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) {
    std::fprintf(stderr, "%s\n", dlerror());
    std::abort();
  }
  IPluginCreatorInterface* const* found =
      reinterpret_cast<Get>(dlsym(library, "getCreators"))(count);
  for (int32_t i = 0; i < count; ++i) {
    spies[i].spied = static_cast<IPluginCreatorV3One*>(found[i]);
    creators[i] = &spies[i];
  }
  return creators;
}
