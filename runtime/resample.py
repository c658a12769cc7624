"""Bilinear resizing as sparse weights, one axis at a time and some rows at a time.

Two resizes in a row are composed into one before any pixel is touched, so that masks go
from 1/4 of the network's resolution to the original image without the two full-size arrays
that doing it literally needs; in exact arithmetic the result is the same.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float32]

BLOCK_FLOATS = 1 << 20
"""How many float32 a block of rows holds over all planes: 4 MiB, near a core's caches."""

BLOCK_ROWS = 8
"""Least rows of a block: thinner ones would resize the same input rows again and again."""


@dataclass(frozen=True, slots=True)
class Taps:
    """Linear interpolation along one axis: out[i] = sum_t weight[i, t] * in[start[i] + t].

    Attributes:
        source: Length of the input axis.
        start: int64 [length], first input element of each output element.
        weight: float32 [length, T], T the same for all (zeros where fewer are needed).
    """

    source: int
    start: NDArray[np.int64]
    weight: Float

    def __len__(self) -> int:
        return len(self.start)

    def __getitem__(self, part: slice) -> Taps:
        """Only some of the outputs."""
        return Taps(self.source, self.start[part], self.weight[part])

    def after(self, first: Taps) -> Taps:
        """This interpolation of what ``first`` gives, as one."""
        inner = self.start[:, None] + np.arange(self.weight.shape[1])  # [n, T2]
        index = first.start[inner][..., None] + np.arange(first.weight.shape[1])
        weight = self.weight[..., None].astype(np.float64) * first.weight[inner]
        n = len(self)
        return _banded(first.source, index.reshape(n, -1), weight.reshape(n, -1))

    def window(self, part: slice) -> slice:
        """The input elements that the outputs in ``part`` need."""
        start = self.start[part]
        return slice(int(start.min()), int(start.max()) + self.weight.shape[1])


def linear(source: int, target: int, *, extent: float | None = None) -> Taps:
    """Resizes an axis the way `torch.nn.functional.interpolate` does (bilinear, no antialias).

    ``align_corners=False``: element i covers [i, i + 1), and edges repeat. Positions are
    rounded to float32 once, with a scale in float32, as torch does: at 2/3 scale float64
    would already move them by 1e-5 of a pixel.

    Args:
        source: Length of the input axis.
        target: Length of the output axis.
        extent: How much of the input axis is resized, from 0, in input elements; all of it
            unless given. It need not be whole.
    """
    one, half = np.float32(1), np.float32(0.5)
    scale = np.float32(source if extent is None else extent) / np.float32(target)
    centre = np.arange(target, dtype=np.float32) + half
    exact = np.float64(scale) * centre - 0.5
    position = np.maximum(exact.astype(np.float32), np.float32(0))
    last = _last(source, extent)
    low = np.minimum(position.astype(np.int64), last)
    high = np.minimum(low + 1, last)
    fraction = np.clip(position - low.astype(np.float32), 0, one)
    weight = np.stack([one - fraction, fraction], 1)
    return _banded(source, np.stack([low, high], 1), weight)


def nearest(source: int, target: int, *, extent: float | None = None) -> NDArray[np.int64]:
    """Input index of each output, as torch's ``mode="nearest"``; arguments as `linear`."""
    scale = np.float32(source if extent is None else extent) / np.float32(target)
    index = (np.arange(target, dtype=np.float32) * scale).astype(np.int64)
    return np.minimum(index, _last(source, extent))


@dataclass(frozen=True, slots=True)
class Resampler:
    """Both axes of a resize of planes [n, h, w] to [n, H, W]."""

    rows: Taps
    columns: Taps

    @property
    def size(self) -> tuple[int, int]:
        """H, W."""
        return len(self.rows), len(self.columns)

    def after(self, first: Resampler) -> Resampler:
        """This resize of what ``first`` gives, as one."""
        return Resampler(self.rows.after(first.rows), self.columns.after(first.columns))

    def parts(self, planes: int) -> Iterator[slice]:
        """Cuts the output's rows so that ``planes`` of them fit `BLOCK_FLOATS`."""
        height, width = self.size
        # Where it shrinks, the input's rows are what fills memory.
        row = max(width, self.columns.source * -(-self.rows.source // height))
        step = max(BLOCK_ROWS, BLOCK_FLOATS // (row * max(1, planes)))
        for top in range(0, height, step):
            yield slice(top, min(top + step, height))

    def resize(self, planes: Float, part: slice | None = None, *, first_row: int = 0) -> Float:
        """Some rows of the result.

        Args:
            planes: [n, h, w], or only its rows from ``first_row`` on, as far as needed.
            part: Which rows of the output; all unless given.
            first_row: Index of the first row in ``planes``.

        Returns:
            [n, rows in part, W], float32, new memory.
        """
        rows = self.rows if part is None else self.rows[part]
        window = rows.window(slice(None))
        planes = planes[:, window.start - first_row : window.stop - first_row]
        return _along_rows(_along_columns(planes, self.columns), rows, window.start)


def between(
    source: tuple[int, int],
    target: tuple[int, int],
    *,
    extent: tuple[float, float] | None = None,
) -> Resampler:
    """The `linear` resize from (h, w) to (H, W)."""
    height, width = source if extent is None else extent
    return Resampler(
        linear(source[0], target[0], extent=height), linear(source[1], target[1], extent=width)
    )


def _along_columns(planes: Float, taps: Taps) -> Float:
    if taps.weight.shape[1] == 1 and np.array_equal(taps.start, np.arange(taps.source)):
        return planes * taps.weight[:, 0]
    out = np.take(planes, taps.start, axis=2)
    out *= taps.weight[:, 0]
    for t in range(1, taps.weight.shape[1]):
        out += np.take(planes, taps.start + t, axis=2) * taps.weight[:, t]
    return out


def _along_rows(planes: Float, taps: Taps, first_row: int) -> Float:
    start = taps.start - first_row
    out = np.take(planes, start, axis=1)
    out *= taps.weight[:, 0, None]
    for t in range(1, taps.weight.shape[1]):
        out += np.take(planes, start + t, axis=1) * taps.weight[:, t, None]
    return out


def _last(source: int, extent: float | None) -> int:
    """The last element that takes part: beyond it is padding, which must not shine in."""
    return source - 1 if extent is None else min(math.ceil(extent), source) - 1


def _banded(source: int, index: NDArray[np.int64], weight: NDArray[np.floating]) -> Taps:
    """Gathers each output's inputs (which may repeat) into one run of neighbours."""
    used = weight != 0
    low = np.where(used, index, source).min(axis=1)
    high = np.where(used, index, 0).max(axis=1)
    width = int((high - low).max()) + 1
    start = np.minimum(low, source - width)
    band = np.zeros((len(index), width), np.float64)
    row = np.broadcast_to(np.arange(len(index))[:, None], index.shape)
    np.add.at(band, (row[used], (index - start[:, None])[used]), weight[used])
    return Taps(source, start, band.astype(np.float32))
