// Image processing as C functions, for ctypes. Each returns 0, or 1 after writing one sentence
// into `message`. `isa` chooses kernels as in m2f_kernels, 0 the fastest.

#include <cstring>

#include "common/export.h"
#include "common/threads.h"
#include "images/images.h"
#include "images/weights.h"

namespace {

using namespace m2f;
using namespace m2f::images;

// How every call is to be run, and where to say what went wrong.
struct Call {
  int32_t isa;
  int32_t threads;
  char message[256];
};

template <class Function>
int guarded(Call* call, Function function) {
  Status status;
  const Kernels* found = kernels(call->isa);
  if (found == nullptr) {
    status = error("this machine has no kernels %d", call->isa);
  } else if (call->threads < 1) {
    status = error("threads is at least 1, got %d", call->threads);
  } else {
    try {
      int threads = call->threads;
      status = function(*found, Parallel{run_on_threads, &threads});
    } catch (const std::exception& problem) {
      status = error("%s", problem.what());
    }
  }
  std::memcpy(call->message, status.text, sizeof call->message);
  return status.ok() ? 0 : 1;
}

}  // namespace

extern "C" {

// Changes with any signature or structure below: a library built earlier is not called.
M2F_EXPORT int m2f_images_version() { return 1; }

M2F_EXPORT int m2f_panoptic(Call* call, const Geometry* size, const Planes* planes,
                            const float* scores, const panoptic::Rules* rules, uint16_t* codes,
                            int64_t* counts) {
  return guarded(call, [&](const Kernels& kernels, const Parallel& parallel) {
    return panoptic::compete(*size, *planes, scores, *rules, codes, counts, kernels, parallel);
  });
}

M2F_EXPORT int m2f_semantic(Call* call, const Geometry* size, const Planes* planes,
                            const float* probabilities, int64_t classes, int32_t sums_first,
                            int32_t* labels) {
  return guarded(call, [&](const Kernels& kernels, const Parallel& parallel) {
    return semantic::classify(*size, *planes, probabilities, classes, sums_first != 0, labels,
                              kernels, parallel);
  });
}

M2F_EXPORT int m2f_instance(Call* call, const Geometry* size, const Planes* planes,
                            uint8_t* bits, double* total, int64_t* inside) {
  return guarded(call, [&](const Kernels& kernels, const Parallel& parallel) {
    return instance::binarise(*size, *planes, bits, total, inside, kernels, parallel);
  });
}

M2F_EXPORT int m2f_resize(Call* call, const resize::Image* from, const resize::Slot* to,
                          int32_t filter) {
  return guarded(call, [&](const Kernels& kernels, const Parallel& parallel) {
    return resize::resize(*from, *to, static_cast<resize::Filter>(filter), kernels, parallel);
  });
}

// For a device: the weights of one axis as a table [target, 2 + m2f_resize_stride].
M2F_EXPORT int64_t m2f_resize_stride(int64_t source, int64_t target) {
  return resize::weights_stride(source, target);
}

M2F_EXPORT int m2f_resize_table(Call* call, int64_t source, int64_t target, int32_t* table) {
  return guarded(call, [&](const Kernels&, const Parallel&) {
    resize::write_table(source, target, table);
    return Status{};
  });
}

M2F_EXPORT int m2f_look_up(Call* call, const uint16_t* codes, const int32_t* table,
                           int64_t entries, int64_t height, int64_t width, int32_t* ids) {
  return guarded(call, [&](const Kernels&, const Parallel& parallel) {
    return look_up(codes, table, entries, height, width, ids, parallel);
  });
}

M2F_EXPORT int m2f_regions_of_map(Call* call, const int32_t* ids, int64_t height, int64_t width,
                                  int64_t count, Region* regions) {
  return guarded(call, [&](const Kernels&, const Parallel& parallel) {
    return regions_of_map(ids, height, width, count, regions, parallel);
  });
}

M2F_EXPORT int m2f_regions_of_masks(Call* call, const uint8_t* bits, int64_t count,
                                    int64_t height, int64_t width, Region* regions) {
  return guarded(call, [&](const Kernels&, const Parallel& parallel) {
    return regions_of_masks(bits, count, height, width, regions, parallel);
  });
}

M2F_EXPORT int m2f_enlarge_masks(Call* call, const uint8_t* bits, int64_t count, int64_t height,
                                 int64_t width, const int64_t* rows, int64_t out_height,
                                 const int64_t* columns, int64_t out_width, uint8_t* to) {
  return guarded(call, [&](const Kernels&, const Parallel& parallel) {
    return enlarge_masks(bits, count, height, width, rows, out_height, columns, out_width, to,
                         parallel);
  });
}

M2F_EXPORT int m2f_count_not_finite(Call* call, const float* values, int64_t count,
                                    int64_t* found) {
  return guarded(call, [&](const Kernels&, const Parallel& parallel) {
    *found = count_not_finite(values, count, parallel);
    return Status{};
  });
}

}  // extern "C"
