// The ops as C functions, for ctypes: tests and benchmarks without ONNX Runtime. Each returns
// 0, or 1 after writing one sentence into `message`.

#include <cinttypes>
#include <cstring>

#include "common/export.h"
#include "common/threads.h"
#include "ops/masked_attention/op.h"
#include "ops/ms_deform_attn/op.h"

namespace {

using namespace m2f;

int report(const Status& status, char* message, size_t size) {
  if (status.ok()) return 0;
  std::snprintf(message, size, "%s", status.text);
  return 1;
}

// Runs `call` and turns whatever goes wrong into a sentence.
template <class Call>
int guarded(int isa, int storage, int threads, char* message, size_t size, Call call) {
  if (storage < 0 || storage > static_cast<int>(Storage::kBFloat16)) {
    return report(error("storage is 0, 1 or 2, got %d", storage), message, size);
  }
  if (threads < 1)
    return report(error("threads is at least 1, got %d", threads), message, size);
  if (isa != -1 && kernels(isa) == nullptr) {
    return report(error("this machine has no kernels %d", isa), message, size);
  }
  try {
    return report(call(Parallel{run_on_threads, &threads}), message, size);
  } catch (const std::exception& problem) {
    return report(error("%s", problem.what()), message, size);
  }
}

}  // namespace

extern "C" {

// Name of the kernels `isa`, the fastest is 0; null past the last.
M2F_EXPORT const char* m2f_kernels(int isa) {
  const Kernels* found = kernels(isa);
  return found == nullptr ? nullptr : found->name;
}

// `isa` -1 runs the plain loops. Shapes are those of op.toml; storage as in common/storage.h,
// `value_storage` apart that of all tensors.
M2F_EXPORT int m2f_ms_deform_attn(int isa, int storage, int threads, int value_storage,
                                  float value_scale, const void* value,
                                  const int64_t* value_shape, const void* sampling,
                                  const int64_t* sampling_shape, const int64_t* sides,
                                  int64_t level_count, int64_t heads, int64_t points,
                                  void* output, char* message, size_t message_size) {
  return guarded(isa, storage, threads, message, message_size, [&](Parallel parallel) {
    const ms_deform_attn::Attributes attributes = {heads, points};
    const ms_deform_attn::Format format = {static_cast<Storage>(value_storage),
                                           static_cast<Storage>(storage), value_scale};
    ms_deform_attn::Shape shape;
    Status status = ms_deform_attn::check(format);
    if (!status.ok()) return status;
    status = ms_deform_attn::make_shape(value_shape, sampling_shape, sides, level_count,
                                        attributes, &shape);
    if (!status.ok()) return status;
    if (isa >= 0) {
      return ms_deform_attn::forward(shape, format, value, sampling, output, *kernels(isa),
                                     parallel);
    }
    ms_deform_attn::forward_plain(shape, format, value, sampling, output);
    return Status{};
  });
}

M2F_EXPORT int m2f_masked_attention(int isa, int storage, int threads, const void* q,
                                    const int64_t* q_shape, const void* k,
                                    const int64_t* k_shape, const void* v,
                                    const int64_t* v_shape, const void* mask_logits,
                                    const int64_t* mask_shape, int64_t heads, void* output,
                                    char* message, size_t message_size) {
  return guarded(isa, storage, threads, message, message_size, [&](Parallel parallel) {
    masked_attention::Shape shape;
    const Status status =
        masked_attention::make_shape(q_shape, k_shape, v_shape, mask_shape, {heads}, &shape);
    if (!status.ok()) return status;
    const auto type = static_cast<Storage>(storage);
    if (isa >= 0) {
      return masked_attention::forward(shape, type, q, k, v, mask_logits, output, *kernels(isa),
                                       parallel);
    }
    masked_attention::forward_plain(shape, type, q, k, v, mask_logits, output);
    return Status{};
  });
}

}  // extern "C"
