"""The library's image processing, as functions over NumPy arrays.

Results are those of the NumPy versions beside it, up to rounding; where there is no library
(see `m2f.plugins.library`), `library` says so and the NumPy versions are used. Everything that
knows of pointers is here; what the functions compute is described in ``plugins/images``.
"""

from __future__ import annotations

import ctypes
import functools
import os
from collections.abc import Callable
from ctypes import c_char, c_double, c_int32, c_int64, c_void_p
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from m2f.errors import M2FError
from m2f.plugins import library as files
from m2f.runtime.masks import Regions

VERSION = 1
"""Of the C interface; a library of another one, built from other sources, is not called."""

Size = tuple[int, int]
Float = NDArray[np.float32]
Masks = Any
"""Mask logits [Q, h, w]: an array, or what a `Library` for elsewhere takes in its place."""


class _Call(ctypes.Structure):
    _fields_ = (("isa", c_int32), ("threads", c_int32), ("message", c_char * 256))


class _Geometry(ctypes.Structure):
    _fields_ = (
        ("extent", c_double * 2),
        ("mask", c_int64 * 2),
        ("middle", c_int64 * 2),
        ("valid", c_int64 * 2),
        ("output", c_int64 * 2),
    )


class _Planes(ctypes.Structure):
    _fields_ = (("data", c_void_p), ("index", c_void_p), ("count", c_int64))


class _Rules(ctypes.Structure):
    _fields_ = (
        ("threshold", ctypes.c_float),
        ("is_weighted", c_int32),
        ("as_probabilities", c_int32),
    )


class _Image(ctypes.Structure):
    _fields_ = (("pixels", c_void_p), ("height", c_int64), ("width", c_int64))


class _Slot(ctypes.Structure):
    _fields_ = (
        ("pixels", c_void_p),
        ("height", c_int64),
        ("width", c_int64),
        ("padded_height", c_int64),
        ("padded_width", c_int64),
    )


@dataclass(frozen=True, slots=True)
class Route:
    """The two resizes of a mask: to ``middle``, then its valid part to ``output``.

    Attributes:
        middle: Height and width of what the mask's ``extent`` is resized to.
        valid: The part of it that goes on.
        output: Of the result.
        extent: Elements of the mask that take part; all unless given.
    """

    middle: Size
    valid: Size
    output: Size
    extent: tuple[float, float] | None = None

    def geometry(self, mask: Size) -> _Geometry:
        """For the C interface."""
        pair = c_int64 * 2
        return _Geometry(
            (c_double * 2)(*(mask if self.extent is None else self.extent)),
            pair(*mask),
            pair(*self.middle),
            pair(*self.valid),
            pair(*self.output),
        )


class Library:
    """One library, one set of its kernels, and how many threads work at a call."""

    def __init__(self, path: Path, *, threads: int | None = None, isa: int = 0) -> None:
        """Loads it.

        Args:
            path: The file.
            threads: CPU cores to use; all that this process may unless given.
            isa: Which kernels; 0 are the fastest.

        Raises:
            OSError: It cannot be loaded here.
            AttributeError: It is older than image processing in it, or of another version.
        """
        self._library = ctypes.CDLL(str(path))
        if self._library.m2f_images_version() != VERSION:
            raise AttributeError("another version of m2f_images")
        self.threads = threads or len(os.sched_getaffinity(0))
        self.isa = isa

    def panoptic(
        self,
        masks: Float,
        kept: NDArray[np.int64],
        scores: Float,
        route: Route,
        *,
        threshold: float,
        is_weighted: bool,
        as_probabilities: bool,
    ) -> tuple[NDArray[np.uint16], NDArray[np.int64]]:
        """Lets queries compete for pixels; see ``plugins/images/panoptic.h``.

        Args:
            masks: [Q, h, w], logits.
            kept: Which of them take part, n.
            scores: Their class probabilities, [n].
            route: How masks get to the output.
            threshold: From where on a pixel is in a query's own mask.
            is_weighted: That is class times mask probability, not the latter.
            as_probabilities: The second resize is of probabilities.

        Returns:
            Codes [H, W]: twice the winner's rank, plus 1 in its own mask; and the pixels of
            each own mask, those won, and those of both, [3, n].
        """
        codes = np.empty(route.output, np.uint16)
        counts = np.empty((3, len(kept)), np.int64)
        rules = _Rules(threshold, is_weighted, as_probabilities)
        with_masks = self._masks(masks, kept, route)
        self._run(
            "panoptic", *with_masks, _contiguous(scores, np.float32), rules, codes, counts
        )
        return codes, counts

    def semantic(
        self, masks: Float, probabilities: Float, route: Route, *, sums_first: bool
    ) -> NDArray[np.int32]:
        """The class of every pixel, [H, W].

        Args:
            masks: [Q, h, w], logits.
            probabilities: Of the classes, [Q, K].
            route: How masks get to the output.
            sums_first: The second resize is of the sums over queries.
        """
        labels = np.empty(route.output, np.int32)
        with_masks = self._masks(masks, np.arange(len(masks)), route)
        weights = _contiguous(probabilities, np.float32)
        self._run("semantic", *with_masks, weights, weights.shape[1], int(sums_first), labels)
        return labels

    def instance(
        self, masks: Float, chosen: NDArray[np.int64], route: Route
    ) -> tuple[NDArray[np.uint8], NDArray[np.float64], NDArray[np.int64]]:
        """Where logits are positive: bits [n, H, ceil(W / 8)], and probabilities there.

        Args:
            masks: [Q, h, w], logits.
            chosen: Which of them, n.
            route: How masks get to the output.

        Returns:
            The bits, as `numpy.packbits`; per mask the sum of the probabilities inside, [n],
            and the pixels inside, [n].
        """
        n = len(chosen)
        bits = np.empty((n, route.output[0], -(-route.output[1] // 8)), np.uint8)
        total, inside = np.empty(n, np.float64), np.empty(n, np.int64)
        self._run("instance", *self._masks(masks, chosen, route), bits, total, inside)
        return bits, total, inside

    def look_up(self, codes: NDArray[np.uint16], table: NDArray[np.int32]) -> NDArray[np.int32]:
        """``table[codes]``."""
        ids = np.empty(codes.shape, np.int32)
        self._run("look_up", codes, table, len(table), *codes.shape, ids)
        return ids

    def regions_of_map(self, ids: NDArray[np.int32], count: int) -> Regions:
        """Areas and boxes of the ids below ``count`` in a map [H, W]."""
        found = np.empty((count, 5), np.int64)
        self._run("regions_of_map", _contiguous(ids, np.int32), *ids.shape, count, found)
        return Regions(found[:, 0], found[:, 1:])

    def regions_of_masks(self, bits: NDArray[np.uint8], width: int) -> Regions:
        """Areas and boxes of packed masks [n, H, ceil(width / 8)]."""
        found = np.empty((len(bits), 5), np.int64)
        self._run("regions_of_masks", bits, len(bits), bits.shape[1], width, found)
        return Regions(found[:, 0], found[:, 1:])

    def enlarge_masks(
        self,
        bits: NDArray[np.uint8],
        width: int,
        rows: NDArray[np.int64],
        columns: NDArray[np.int64],
    ) -> NDArray[np.uint8]:
        """Of packed masks [n, h, ceil(width / 8)] the pixels at ``rows`` and ``columns``."""
        n, height = bits.shape[:2]
        out = np.empty((n, len(rows), -(-len(columns) // 8)), np.uint8)
        sides = (rows, len(rows), columns, len(columns))
        self._run("enlarge_masks", bits, n, height, width, *sides, out)
        return out

    def count_not_finite(self, values: Float) -> int:
        """How many are NaN or infinite."""
        found = np.zeros(1, np.int64)
        self._run("count_not_finite", values, values.size, found)
        return int(found[0])

    def resize(
        self,
        image: NDArray[np.uint8],
        size: Size,
        out: NDArray[np.uint8],
        *,
        antialias: bool,
    ) -> None:
        """Resizes one image into its slot of a batch; the rest of the slot becomes zero.

        Args:
            image: uint8 [H, W, 3].
            size: Height and width of the result.
            out: uint8, contiguous, at least that large.
            antialias: Pillow's bilinear; else from the four nearest pixels.
        """
        image = _contiguous(image, np.uint8)
        source = _Image(image.ctypes.data, *image.shape[:2])
        slot = _Slot(out.ctypes.data, *size, *out.shape[:2])
        self._run("resize", source, slot, int(not antialias))

    def resize_stride(self, source: int, target: int) -> int:
        """Weights of an element when an axis is resized as Pillow does, at most."""
        function = self._library.m2f_resize_stride
        function.restype = c_int64
        return int(function(c_int64(source), c_int64(target)))

    def resize_table(self, source: int, target: int, out: NDArray[np.int32]) -> None:
        """The weights of an axis for a device, int32 [target, 2 + stride], contiguous."""
        self._run("resize_table", source, target, out)

    def _masks(self, masks: Float, index: NDArray[np.int64], route: Route) -> tuple[Any, ...]:
        index = _contiguous(index, np.int64)
        if masks.dtype != np.float32 or not masks.flags.c_contiguous:
            masks, index = _contiguous(masks[index], np.float32), np.arange(len(index))
        # The arrays travel along, for the call must not outlive them.
        planes = _Planes(masks.ctypes.data, index.ctypes.data, len(index))
        planes.arrays = (masks, index)
        return route.geometry((masks.shape[1], masks.shape[2])), planes

    def _run(self, name: str, *arguments: Any) -> None:
        call = _Call(self.isa, self.threads)
        function: Callable[..., int] = getattr(self._library, f"m2f_{name}")
        if function(ctypes.byref(call), *map(_argument, arguments)):
            raise M2FError(f"native {name}: {call.message.decode()}")


def library(threads: int | None = None) -> Library | None:
    """The library where there is one that fits, with this many threads; all unless given."""
    path = files.find()
    return None if path is None else _opened(path, threads)


@functools.lru_cache(maxsize=16)
def _opened(path: Path, threads: int | None) -> Library | None:
    try:
        return Library(path, threads=threads)
    except (OSError, AttributeError):  # said once, where ONNX Runtime loads it
        return None


def _contiguous(array: NDArray[Any], dtype: Any) -> NDArray[Any]:
    return np.ascontiguousarray(array, dtype)


def _argument(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return c_void_p(value.ctypes.data)
    if isinstance(value, ctypes.Structure):
        return ctypes.byref(value)
    return c_int64(value)
