// WindowAttention as a C function, for ctypes: tests without ONNX Runtime.

#include "common/export.h"
#include "common/threads.h"
#include "fused/window_attention/cpu.h"
#include "fused/window_attention/op.h"

extern "C" {

// Shapes as in op.toml; `isa` -1 runs the plain loops. Returns 0, or 1 after writing one
// sentence into `message`.
M2F_EXPORT int m2f_window_attention(int isa, int threads, const float* qkv,
                                    const int64_t* qkv_shape, const float* padding,
                                    const int64_t* padding_shape, const float* position_bias,
                                    const int64_t* bias_shape, int64_t window, int64_t shift,
                                    float* output, char* message, size_t message_size) {
  using namespace m2f;
  window_attention::Shape shape;
  Status status = window_attention::make_shape(qkv_shape, padding_shape, bias_shape,
                                               {window, shift}, &shape);
  if (status.ok() && isa >= 0) {
    status = window_attention::forward(shape, qkv, padding, position_bias, output,
                                       *kernels(isa), Parallel{run_on_threads, &threads});
  } else if (status.ok()) {
    window_attention::forward_plain(shape, qkv, padding, position_bias, output);
  }
  std::snprintf(message, message_size, "%s", status.text);
  return status.ok() ? 0 : 1;
}

}  // extern "C"
