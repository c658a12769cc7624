"""Many binary masks of one image, one bit a pixel."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class PackedMasks:
    """n masks of H x W pixels, of which some may be the same one.

    Attributes:
        bits: uint8 [u, H, ceil(W / 8)], as `numpy.packbits` along the last axis.
        rows: int64 [n], where in ``bits`` each mask is.
        width: W.
    """

    bits: NDArray[np.uint8]
    rows: NDArray[np.int64]
    width: int

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Mask:
        """One mask, bool [H, W]."""
        bits = self.bits[self.rows[index]]
        return np.unpackbits(bits, axis=1, count=self.width).view(np.bool_)

    def take(self, index: NDArray[np.int64]) -> PackedMasks:
        """Some of them, in another order; shares the bits."""
        return PackedMasks(self.bits, self.rows[index], self.width)

    def unpack(self) -> Mask:
        """All of them, bool [n, H, W]: eight times as large, repeated masks apart."""
        out = np.empty((len(self), self.bits.shape[1], self.width), np.bool_)
        for i in range(len(self)):
            out[i] = self[i]
        return out


@dataclass(frozen=True, slots=True, eq=False)
class Regions:
    """Where n segments are.

    Attributes:
        areas: int64 [n], pixels.
        boxes: int64 [n, 4]: x, y, width, height in pixels; zeros where there is no pixel.
    """

    areas: NDArray[np.int64]
    boxes: NDArray[np.int64]


def regions_of_map(ids: NDArray[np.int32], count: int) -> Regions:
    """Regions of the ids 0..count-1 of a map [H, W]."""
    areas = np.bincount(ids.ravel(), minlength=count)[:count]
    boxes = [box_of(ids == i) if areas[i] else (0, 0, 0, 0) for i in range(count)]
    return Regions(areas.astype(np.int64), np.array(boxes, np.int64).reshape(count, 4))


def regions_of_masks(masks: PackedMasks) -> Regions:
    """Regions of each mask."""
    each = [masks[i] for i in range(len(masks))]
    areas = np.array([np.count_nonzero(mask) for mask in each], np.int64)
    return Regions(areas, np.array([box_of(mask) for mask in each], np.int64).reshape(-1, 4))


def box_of(mask: Mask) -> tuple[int, int, int, int]:
    """The smallest box around a mask: x, y, width, height in pixels; zeros if it is empty."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return (0, 0, 0, 0)
    x, y = int(columns[0]), int(rows[0])
    return (x, y, int(columns[-1]) - x + 1, int(rows[-1]) - y + 1)
