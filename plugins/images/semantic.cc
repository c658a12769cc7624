#include <algorithm>
#include <cinttypes>

#include "images/images.h"
#include "images/plan.h"
#include "images/tasks.h"

namespace m2f::images::semantic {

Status classify(const Geometry& size, const Planes& planes, const float* probabilities,
                int64_t classes, bool sums_first, int32_t* labels, const Kernels& kernels,
                const Parallel& parallel) {
  if (planes.count < 1 || classes < 1) {
    return error("at least one query and one class are needed, got %" PRId64 " and %" PRId64,
                 planes.count, classes);
  }
  OwnedPlan owned;
  const Status status = make_plan(size, &owned);
  if (!status.ok()) return status;
  const int64_t row = padded(classes);
  std::vector<float> peaks(static_cast<size_t>(planes.count));
  std::vector<float> weights(static_cast<size_t>(planes.count * row), 0.0f);
  for (int64_t q = 0; q < planes.count; ++q) {
    const float* first = probabilities + q * classes;
    std::copy(first, first + classes, weights.begin() + q * row);
    peaks[static_cast<size_t>(q)] = *std::max_element(first, first + classes);
  }
  const Work work = {owned.plan,   planes,     classes, weights.data(),
                     peaks.data(), sums_first, labels};
  return run_tasks(
      work.plan.row_tiles, work.scratch(), parallel,
      [&](int64_t strip, float* memory) { kernels.semantic_classify(work, strip, memory); });
}

}  // namespace m2f::images::semantic
