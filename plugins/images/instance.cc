#include <algorithm>

#include "images/images.h"
#include "images/plan.h"
#include "images/tasks.h"

namespace m2f::images::instance {

Status binarise(const Geometry& size, const Planes& planes, uint8_t* bits, double* total,
                int64_t* inside, const Kernels& kernels, const Parallel& parallel) {
  OwnedPlan owned;
  const Status status = make_plan(size, &owned);
  if (!status.ok()) return status;
  const int64_t strips = static_cast<int64_t>(owned.rows.size());
  const int64_t tasks = planes.count * strips;
  std::vector<double> totals(static_cast<size_t>(tasks));
  std::vector<int64_t> counts(static_cast<size_t>(tasks));
  const Work work = {owned.plan, planes, bits, totals.data(), counts.data()};
  const Status done = run_tasks(
      tasks, work.scratch(), parallel,
      [&](int64_t task, float* memory) { kernels.instance_binarise(work, task, memory); });
  if (!done.ok()) return done;
  for (int64_t i = 0; i < planes.count; ++i) {
    total[i] = 0.0;
    inside[i] = 0;
    for (int64_t s = 0; s < strips; ++s) {
      total[i] += totals[static_cast<size_t>(i * strips + s)];
      inside[i] += counts[static_cast<size_t>(i * strips + s)];
    }
  }
  return {};
}

}  // namespace m2f::images::instance
