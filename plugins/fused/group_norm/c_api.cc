// GroupNorm as a C function, for ctypes: tests without ONNX Runtime.

#include "common/export.h"
#include "common/threads.h"
#include "fused/group_norm/cpu.h"
#include "fused/group_norm/op.h"

extern "C" {

// Shapes as in op.toml, `coarse` may be null; `isa` -1 runs the plain loops. Returns 0, or 1
// after writing one sentence into `message`.
M2F_EXPORT int m2f_group_norm(int isa, int threads, const float* x, const int64_t* x_shape,
                              const float* weight, const int64_t* weight_shape,
                              const float* bias, const int64_t* bias_shape, const float* coarse,
                              const int64_t* coarse_shape, int64_t groups, float epsilon,
                              int64_t activation, float* output, char* message,
                              size_t message_size) {
  using namespace m2f;
  const group_norm::Attributes attributes = {groups, epsilon, activation};
  group_norm::Shape shape;
  Status status =
      group_norm::make_shape(x_shape, weight_shape, bias_shape,
                             coarse == nullptr ? nullptr : coarse_shape, attributes, &shape);
  if (status.ok() && isa >= 0) {
    status = group_norm::forward(shape, attributes, x, weight, bias, coarse, output,
                                 *kernels(isa), Parallel{run_on_threads, &threads});
  } else if (status.ok()) {
    group_norm::forward_plain(shape, epsilon, attributes.is_rectified(), x, weight, bias,
                              coarse, output);
  }
  std::snprintf(message, message_size, "%s", status.text);
  return status.ok() ? 0 : 1;
}

}  // extern "C"
