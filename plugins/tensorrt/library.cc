// libm2f_trt: the ops as TensorRT plugins, for `IPluginRegistry::loadLibrary`.
//
// TensorRT finds the two functions below by name. Nothing here links to libnvinfer, so that one
// library serves TensorRT 10.3 to 11.x and TensorRT for RTX, whichever loads it.

#include <atomic>
#include <cstdio>

#include "common/cuda/ops.h"
#include "common/export.h"
#include "tensorrt/creator.h"

namespace m2f::tensorrt {
namespace {

std::atomic<nvinfer1::ILoggerFinder*> logger_finder{nullptr};

}  // namespace

void set_logger_finder(nvinfer1::ILoggerFinder* finder) noexcept { logger_finder = finder; }

bool succeeded(const Status& status) noexcept {
  if (status.ok()) return true;
  nvinfer1::ILoggerFinder* finder = logger_finder;
  nvinfer1::ILogger* logger = finder == nullptr ? nullptr : finder->findLogger();
  if (logger == nullptr) {
    std::fprintf(stderr, "m2f: %s\n", status.text);
  } else {
    logger->log(nvinfer1::ILogger::Severity::kERROR, status.text);
  }
  return false;
}

std::string text_from(int64_t number) {
  char text[24];
  std::snprintf(text, sizeof text, "%" PRId64, number);
  return text;
}

std::string text_from(float number) {
  char text[24];
  std::snprintf(text, sizeof text, "%.9g", number);
  return text;
}

std::string text_from(const AttributeSpec& attribute, const AttributeValue& value) {
  std::string text = std::string(attribute.name) + "=";
  if (attribute.kind == AttributeKind::kFloat) return text + text_from(value.number);
  if (attribute.kind == AttributeKind::kInt) return text + text_from(value.ints[0]);
  for (int64_t i = 0; i < std::min<int64_t>(value.count, kMaxInts); ++i) {
    text += (i == 0 ? "" : ",") + text_from(value.ints[i]);
  }
  return text;
}

std::string text_from(const OpSpec& spec, const AttributeValue values[]) {
  std::string text;
  for (int32_t i = 0; i < spec.attribute_count; ++i) {
    if (!values[i].is_given) continue;
    text += (text.empty() ? "" : " ") + text_from(spec.attributes[i], values[i]);
  }
  return text;
}

}  // namespace m2f::tensorrt

extern "C" M2F_EXPORT void setLoggerFinder(nvinfer1::ILoggerFinder* finder) {
  m2f::tensorrt::set_logger_finder(finder);
}

extern "C" M2F_EXPORT nvinfer1::IPluginCreatorInterface* const* getCreators(int32_t& count) {
  static m2f::tensorrt::Creator<m2f::MsDeformAttn> ms_deform_attn;
  static m2f::tensorrt::Creator<m2f::MaskedAttention> masked_attention;
  static nvinfer1::IPluginCreatorInterface* const creators[] = {&ms_deform_attn,
                                                                &masked_attention};
  count = 2;
  return creators;
}
