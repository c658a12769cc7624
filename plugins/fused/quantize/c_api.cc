// Quantize as a C function, for ctypes: tests without ONNX Runtime.

#include "common/export.h"
#include "common/threads.h"
#include "fused/quantize/cpu.h"
#include "fused/quantize/op.h"

extern "C" {

// Of `count` elements; `type` is a Storage, that of `zero` and of the output; `isa` -1 runs the
// plain loops. Returns 0, or 1 after writing one sentence into `message`.
M2F_EXPORT int m2f_quantize(int isa, int type, int threads, const float* x, int64_t count,
                            float scale, const void* zero, int64_t activation, void* output,
                            char* message, size_t message_size) {
  using namespace m2f;
  AttributeValue value;
  value.ints[0] = activation;
  quantize::Attributes attributes;
  const Status status = quantize::read_attributes(&value, &attributes);
  const quantize::Grid grid = quantize::make_grid(scale, static_cast<Storage>(type), zero);
  if (status.ok() && isa >= 0) {
    quantize::forward(attributes, grid, count, x, output, *kernels(isa),
                      Parallel{run_on_threads, &threads});
  } else if (status.ok()) {
    quantize::forward_plain(attributes.activation, grid, count, x,
                            static_cast<uint8_t*>(output));
  }
  std::snprintf(message, message_size, "%s", status.text);
  return status.ok() ? 0 : 1;
}

}  // extern "C"
