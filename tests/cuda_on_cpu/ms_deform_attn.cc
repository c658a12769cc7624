// MSDeformAttn's launcher for ctypes.

#include "ops/ms_deform_attn/cuda.h"

// `sides` is H_0, W_0, H_1, W_1, ...; storages are numbered as in common/storage.h.
extern "C" __attribute__((visibility("default"))) int ms_deform_attn(
    const void* value, const void* sampling, void* output, const int64_t* sides, int levels,
    int batch, int heads, int depth, int points, int value_storage, int storage,
    float value_scale, int tactic) {
  using namespace m2f::ms_deform_attn;
  Shape shape = {};
  shape.batch = batch;
  shape.channels = int64_t{heads} * depth;
  shape.heads = heads;
  shape.points = points;
  shape.levels = levels;
  for (int l = 0; l < levels; ++l) {
    const auto height = static_cast<int32_t>(sides[2 * l]);
    const auto width = static_cast<int32_t>(sides[2 * l + 1]);
    shape.level[l] = {height, width, static_cast<int32_t>(shape.positions)};
    shape.positions += int64_t{height} * width;
  }
  const Format format = {static_cast<m2f::Storage>(value_storage),
                         static_cast<m2f::Storage>(storage), value_scale};
  return forward_cuda(shape, format, value, sampling, output, tactic, nullptr);
}
