#pragma once

#include "common/kernels.h"
#include "common/parallel.h"
#include "common/status.h"

// What is done to images before the network and after it. Each function checks sizes, splits
// the work into tasks whose results do not depend on the threads that run them, and calls the
// kernels of an instruction set; each has a file of its own.

namespace m2f::images {

namespace panoptic {

// `codes` [H, W] and `counts` [3, n] (own, won, both) of the `planes`, n at most 32767.
Status compete(const Geometry& size, const Planes& planes, const float* scores,
               const Rules& rules, uint16_t* codes, int64_t* counts, const Kernels& kernels,
               const Parallel& parallel);

}  // namespace panoptic

namespace semantic {

// `labels` [H, W] from all `planes` and their class probabilities [Q, K].
Status classify(const Geometry& size, const Planes& planes, const float* probabilities,
                int64_t classes, bool sums_first, int32_t* labels, const Kernels& kernels,
                const Parallel& parallel);

}  // namespace semantic

namespace instance {

// `bits` as above; `total` [n] and `inside` [n] of each of the planes.
Status binarise(const Geometry& size, const Planes& planes, uint8_t* bits, double* total,
                int64_t* inside, const Kernels& kernels, const Parallel& parallel);

}  // namespace instance

namespace resize {

// Fills all of the slot; the image keeps none of its aspect.
Status resize(const Image& from, const Slot& to, Filter filter, const Kernels& kernels,
              const Parallel& parallel);

}  // namespace resize

// What is known of segments once every pixel is decided: regions.cc.

// Of one segment, in pixels; all zeros where it has none.
struct Region {
  int64_t area;
  int64_t x;
  int64_t y;
  int64_t width;
  int64_t height;
};

// ids[p] = table[codes[p]] over [H, W]; codes at or above `entries` are errors.
Status look_up(const uint16_t* codes, const int32_t* table, int64_t entries, int64_t height,
               int64_t width, int32_t* ids, const Parallel& parallel);

// Regions of the ids 0..count-1 of a map [H, W]; other ids are left out.
Status regions_of_map(const int32_t* ids, int64_t height, int64_t width, int64_t count,
                      Region* regions, const Parallel& parallel);

// Regions of masks [n, H, ceil(W / 8)], the first pixel in the highest bit.
Status regions_of_masks(const uint8_t* bits, int64_t count, int64_t height, int64_t width,
                        Region* regions, const Parallel& parallel);

// Masks [n, h, ceil(w / 8)] to [n, H, ceil(W / 8)]: pixel (y, x) is that at (rows[y],
// columns[x]).
Status enlarge_masks(const uint8_t* bits, int64_t count, int64_t height, int64_t width,
                     const int64_t* rows, int64_t out_height, const int64_t* columns,
                     int64_t out_width, uint8_t* to, const Parallel& parallel);

// How many of `count` floats are NaN or infinite.
int64_t count_not_finite(const float* values, int64_t count, const Parallel& parallel);

}  // namespace m2f::images
