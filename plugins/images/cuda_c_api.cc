// Image processing on a device as C functions, for ctypes. `size` and `rules` are the host's,
// all else the device's; `masks` are [Q, h, w] and `index` [n] says which take part. Each
// returns a cudaError_t, and waits for nothing.

#include "common/export.h"
#include "images/cuda.h"

using namespace m2f::images;

extern "C" {

// Changes with any signature or structure below: a library built earlier is not called.
M2F_EXPORT int m2f_cuda_images_version() { return 3; }

M2F_EXPORT int m2f_cuda_panoptic(const Geometry* size, const float* masks, const int64_t* index,
                                 int64_t count, const float* scores,
                                 const panoptic::Rules* rules, uint16_t* codes, int64_t* counts,
                                 cudaStream_t stream) {
  return compete_cuda(*size, {masks, index, count}, scores, *rules, codes, counts, stream);
}

M2F_EXPORT int m2f_cuda_semantic(const Geometry* size, const float* masks, const int64_t* index,
                                 int64_t count, const float* weights, int64_t classes,
                                 int32_t sums_first, int32_t* labels, cudaStream_t stream) {
  return classify_cuda(*size, {masks, index, count}, weights, classes, sums_first != 0, labels,
                       stream);
}

M2F_EXPORT int m2f_cuda_instance(const Geometry* size, const float* masks, const int64_t* index,
                                 int64_t count, uint8_t* bits, int64_t* total, int64_t* inside,
                                 cudaStream_t stream) {
  return binarise_cuda(*size, {masks, index, count}, bits, total, inside, stream);
}

M2F_EXPORT int m2f_cuda_count_not_finite(const float* values, int64_t count, int64_t* found,
                                         cudaStream_t stream) {
  return count_not_finite_cuda(values, count, found, stream);
}

// `rows` and `columns` are tables of m2f_resize_table.
M2F_EXPORT int m2f_cuda_resize(const resize::DeviceSize* size, const uint8_t* image,
                               const int32_t* rows, const int32_t* columns, int32_t rows_first,
                               uint8_t* slot, cudaStream_t stream) {
  return resize_cuda(*size, image, rows, columns, rows_first != 0, slot, stream);
}

M2F_EXPORT int m2f_cuda_resize_nearest(const resize::DeviceSize* size, const uint8_t* image,
                                       uint8_t* slot, cudaStream_t stream) {
  return resize_nearest_cuda(*size, image, slot, stream);
}

}  // extern "C"
