#include "images/plan.h"

#include <algorithm>
#include <cinttypes>

namespace m2f::images {
namespace {

template <int64_t kCapacity>
void put(Taps<kCapacity>* taps, int64_t i, const Tap& tap) {
  taps->low[i] = tap.low;
  taps->high[i] = tap.high;
  taps->low_weight[i] = tap.low_weight;
  taps->high_weight[i] = tap.high_weight;
}

template <int64_t kCapacity>
Tap tap_at(const Taps<kCapacity>& taps, int64_t i) {
  return {taps.low[i], taps.high[i], taps.low_weight[i], taps.high_weight[i]};
}

template <int64_t kCapacity>
void repeat_last(Taps<kCapacity>* taps) {
  for (int64_t i = taps->count; i < kCapacity; ++i)
    put(taps, i, tap_at(*taps, taps->count - 1));
}

// Lists the elements that taps use, ascending, and makes the taps point into that list. Taps
// never step back, so the list's end is where a used element is, or belongs.
class Used {
 public:
  explicit Used(int32_t* list) : list_(list) {}

  void translate(Tap* tap) {
    tap->low = position(tap->low);
    tap->high = position(tap->high);
  }

  int64_t count() const { return count_; }

 private:
  int32_t position(int32_t element) {
    int64_t i = std::max<int64_t>(count_ - 2, 0);
    while (i < count_ && list_[i] < element) ++i;
    if (i == count_) list_[count_++] = element;
    return static_cast<int32_t>(i);
  }

  int32_t* list_;
  int64_t count_ = 0;
};

AxisTile make_tile(const Geometry& size, int axis, int64_t begin, int64_t count) {
  AxisTile tile = {};
  tile.begin = begin;
  int32_t middle[2 * kTileColumns];
  Used used_middle(middle);
  tile.second.count = count;
  for (int64_t i = 0; i < count; ++i) {
    Tap tap;
    if (size.valid[axis] == size.output[axis]) {
      tap = {static_cast<int32_t>(begin + i), static_cast<int32_t>(begin + i), 1.0f, 0.0f};
    } else {
      tap = linear_tap(begin + i, static_cast<float>(size.valid[axis]), size.output[axis],
                       size.valid[axis] - 1);
    }
    used_middle.translate(&tap);
    put(&tile.second, i, tap);
  }
  repeat_last(&tile.second);

  const bool is_rows = axis == 0;
  const int64_t last = last_within(size.mask[axis], size.extent[axis]);
  Used used_source(tile.source);
  tile.first.count = used_middle.count();
  for (int64_t i = 0; i < tile.first.count; ++i) {
    const Tap tap =
        linear_tap(middle[i], static_cast<float>(size.extent[axis]), size.middle[axis], last);
    Tap listed = tap;
    used_source.translate(&listed);
    put(&tile.first, i, is_rows ? listed : tap);
  }
  repeat_last(&tile.first);
  tile.sources = used_source.count();
  tile.from = tile.source[0];
  tile.to = tile.source[tile.sources - 1] + 1;
  return tile;
}

void cut(const Geometry& size, int axis, int64_t step, std::vector<AxisTile>* tiles) {
  for (int64_t begin = 0; begin < size.output[axis]; begin += step) {
    tiles->push_back(make_tile(size, axis, begin, std::min(step, size.output[axis] - begin)));
  }
}

}  // namespace

Status make_plan(const Geometry& size, OwnedPlan* owned) {
  for (int axis = 0; axis < 2; ++axis) {
    const bool is_ordered = size.mask[axis] >= 1 && size.valid[axis] >= 1 &&
                            size.valid[axis] <= size.middle[axis] && size.output[axis] >= 1;
    if (!is_ordered || !(size.extent[axis] > 0.0)) {
      return error("sizes along axis %d do not fit: %" PRId64
                   " mask elements, of them %g, to "
                   "%" PRId64 ", of them %" PRId64 ", to %" PRId64,
                   axis, size.mask[axis], size.extent[axis], size.middle[axis],
                   size.valid[axis], size.output[axis]);
    }
    const int64_t largest = std::max({size.mask[axis], size.middle[axis], size.output[axis]});
    if (largest > (int64_t{1} << 24)) {  // float32 positions
      return error("%" PRId64 " elements along axis %d are more than 2^24", largest, axis);
    }
  }
  cut(size, 0, kTileRows, &owned->rows);
  cut(size, 1, kTileColumns, &owned->columns);
  int64_t rows = 0, columns = 0;
  for (const AxisTile& tile : owned->rows) rows = std::max(rows, tile.first.count);
  for (const AxisTile& tile : owned->columns) columns = std::max(columns, tile.first.count);
  const bool is_single = size.valid[0] == size.output[0] && size.valid[1] == size.output[1];
  owned->plan = {size,
                 is_single,
                 owned->rows.data(),
                 owned->columns.data(),
                 static_cast<int64_t>(owned->rows.size()),
                 static_cast<int64_t>(owned->columns.size()),
                 rows * padded(columns)};
  return {};
}

}  // namespace m2f::images
