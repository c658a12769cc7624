// Linear as a C function, for ctypes: tests without ONNX Runtime.

#include "common/erf.h"
#include "common/export.h"
#include "common/threads.h"
#include "fused/linear/op.h"

extern "C" {

// Shapes as in op.toml, all rows in one axis; `residual` may be null; `isa` -1 runs the plain
// loops. Returns 0, or 1 after writing one sentence into `message`.
M2F_EXPORT int m2f_linear(int isa, int threads, const float* x, const int64_t* x_shape,
                          const float* weight, const int64_t* weight_shape, const float* bias,
                          const int64_t* bias_shape, const float* residual,
                          const int64_t* residual_shape, int64_t activation, float* output,
                          char* message, size_t message_size) {
  using namespace m2f;
  const auto run = [&] {
    AttributeValue value;
    value.ints[0] = activation;
    linear::Attributes attributes;
    Status status = linear::read_attributes(&value, &attributes);
    if (!status.ok()) return status;
    linear::Shape shape;
    status = linear::make_shape(x_shape, weight_shape, bias_shape,
                                residual == nullptr ? nullptr : residual_shape, &shape);
    if (!status.ok()) return status;
    const linear::Tensors tensors = {x, bias, residual, output};
    if (isa < 0) {
      linear::forward_plain(shape, attributes.activation, weight, tensors);
      return status;
    }
    const Parallel parallel = {run_on_threads, &threads};
    linear::Weight packed;
    status = packed.pack(weight_shape, weight, *kernels(isa), parallel);
    if (!status.ok()) return status;
    linear::forward(shape, attributes.activation, packed, tensors, *kernels(isa), parallel);
    return status;
  };
  const Status status = run();
  std::snprintf(message, message_size, "%s", status.text);
  return status.ok() ? 0 : 1;
}

// common/erf.h in the kernels' vectors; `isa` -1 for one number at a time.
M2F_EXPORT void m2f_erf(int isa, const float* x, int64_t count, float* y) {
  if (isa >= 0) return m2f::kernels(isa)->erf_of(x, count, y);
  for (int64_t i = 0; i < count; ++i) {
    float one[1] = {x[i]};
    m2f::erf(one);
    y[i] = one[0];
  }
}

}  // extern "C"
