#pragma once

#include <NvInferRuntime.h>

#include "common/status.h"

// Where messages go: to the logger of the process that loaded the library.

namespace m2f::tensorrt {

// What TensorRT tells a library about loggers when it loads it; null before.
void set_logger_finder(nvinfer1::ILoggerFinder* finder) noexcept;

// Logs the sentence of a failure. Returns whether there was none.
bool succeeded(const Status& status) noexcept;

}  // namespace m2f::tensorrt
