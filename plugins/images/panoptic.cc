#include <algorithm>
#include <cinttypes>

#include "images/images.h"
#include "images/plan.h"
#include "images/tasks.h"

namespace m2f::images::panoptic {

Status compete(const Geometry& size, const Planes& planes, const float* scores,
               const Rules& rules, uint16_t* codes, int64_t* counts, const Kernels& kernels,
               const Parallel& parallel) {
  constexpr int64_t kMost = 32767;
  if (planes.count < 1 || planes.count > kMost) {
    return error("from 1 to %" PRId64 " queries can compete, got %" PRId64, kMost,
                 planes.count);
  }
  OwnedPlan owned;
  const Status status = make_plan(size, &owned);
  if (!status.ok()) return status;
  std::vector<float> given(static_cast<size_t>(padded(planes.count)), 0.0f);
  std::copy(scores, scores + planes.count, given.begin());
  std::fill(counts, counts + 3 * planes.count, 0);
  const Work work = {owned.plan, planes, given.data(),          rules,
                     codes,      counts, counts + planes.count, counts + 2 * planes.count};
  return run_tasks(
      work.plan.row_tiles, work.scratch(), parallel,
      [&](int64_t strip, float* memory) { kernels.panoptic_compete(work, strip, memory); });
}

}  // namespace m2f::images::panoptic
