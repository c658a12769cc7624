// LayerNorm as a C function, for ctypes: tests without ONNX Runtime.

#include "common/export.h"
#include "common/threads.h"
#include "fused/layer_norm/cpu.h"
#include "fused/layer_norm/op.h"

extern "C" {

// Shapes as in op.toml, leading axes flattened; `isa` -1 runs the plain loops. Returns 0, or 1
// after writing one sentence into `message`.
M2F_EXPORT int m2f_layer_norm(int isa, int threads, const float* x, const int64_t* x_shape,
                              const float* weight, const int64_t* weight_shape,
                              const float* bias, const int64_t* bias_shape, float epsilon,
                              float* output, char* message, size_t message_size) {
  using namespace m2f;
  layer_norm::Shape shape;
  const Status status = layer_norm::make_shape(x_shape, weight_shape, bias_shape, &shape);
  if (status.ok() && isa >= 0) {
    layer_norm::forward(shape, {epsilon}, x, weight, bias, output, *kernels(isa),
                        Parallel{run_on_threads, &threads});
  } else if (status.ok()) {
    layer_norm::forward_plain(shape, epsilon, x, weight, bias, output);
  }
  std::snprintf(message, message_size, "%s", status.text);
  return status.ok() ? 0 : 1;
}

}  // extern "C"
