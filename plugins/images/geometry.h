#pragma once

#include "images/math.h"

// From mask resolution by way of a second one to the output: two linear resizes, cut into
// tiles.

namespace m2f::images {

constexpr int64_t kTileRows = 16;
constexpr int64_t kTileColumns = 32;
constexpr int64_t kPad = 16;  // vectors may run this far past an end; the widest has 16 lanes

// Sizes, in this order [height, width]. Plain, for the C interface.
//
// The first `extent` elements of `mask` are resized to `middle`; the first `valid` elements of
// that are resized to `output`.
struct Geometry {
  double extent[2];
  int64_t mask[2];
  int64_t middle[2];
  int64_t valid[2];
  int64_t output[2];
};

// Linear taps of the elements of one axis, element by element. Past `count`, up to a whole
// vector, the last is repeated.
template <int64_t kCapacity>
struct Taps {
  int64_t count;
  int32_t low[kCapacity];
  int32_t high[kCapacity];
  float low_weight[kCapacity];
  float high_weight[kCapacity];
};

// What one tile needs of one axis. Of a middle axis only elements that some output needs are
// made, and of a mask's rows only those that they need: each is listed once, ascending.
struct AxisTile {
  int64_t begin;  // first output element
  int64_t from;   // the mask's elements [from, to) are enough
  int64_t to;
  int64_t sources;                   // how many of them are used...
  int32_t source[4 * kTileColumns];  // ... and which
  Taps<2 * kTileColumns> first;  // middle elements; of columns in the mask, of rows in `source`
  Taps<kTileColumns> second;     // output elements, in the list of middle ones
};

// All tiles, in order of rows and of columns.
struct Plan {
  Geometry size;
  bool is_single;  // the second resize changes nothing
  const AxisTile* rows;
  const AxisTile* columns;
  int64_t row_tiles;
  int64_t column_tiles;
  int64_t middle_pixels;  // most of any tile, each row padded to whole vectors
};

// Some of an image's mask logits: plane `index[i]` of [Q, h, w], float32 and contiguous.
struct Planes {
  const float* data;
  const int64_t* index;
  int64_t count;

  M2F_HD_METHOD const float* at(int64_t i, const Geometry& size) const {
    return data + index[i] * size.mask[0] * size.mask[1];
  }
};

// A middle row of a tile, padded.
M2F_HD int64_t padded(int64_t count) { return (count + kPad - 1) / kPad * kPad; }

// Floats for the rows of one plane within a tile: see tile_simd.h.
constexpr int64_t kTileScratch = 4 * kTileRows * 2 * kTileColumns +  // mask rows, stretched
                                 2 * kTileRows * 2 * kTileColumns +  // middle rows
                                 2 * kTileRows * kTileColumns;       // and these, stretched

}  // namespace m2f::images
