#pragma once

#include <vector>

#include "common/status.h"
#include "images/geometry.h"

namespace m2f::images {

// A plan with what it points to.
struct OwnedPlan {
  std::vector<AxisTile> rows;
  std::vector<AxisTile> columns;
  Plan plan = {};
};

Status make_plan(const Geometry& size, OwnedPlan* owned);

}  // namespace m2f::images
