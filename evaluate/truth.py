"""Ground truth of one image, as each task's metric wants it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

VOID = 0
"""The segment id of pixels that nobody labelled, in panoptic PNGs."""

UNLABELLED = -1
"""The same in a `SemanticTruth`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TruthSegment:
    """One segment of a panoptic annotation.

    Attributes:
        id: Its value in the map.
        is_crowd: A group of things that were not told apart.
    """

    id: int
    category_id: int
    is_crowd: bool


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class PanopticTruth:
    """Segments that share no pixel.

    Attributes:
        ids: int32 [H, W], `VOID` where nothing is labelled.
        segments: In the order of the annotation file.
        notes: What was odd about it, for the report.
    """

    ids: NDArray[np.int32]
    segments: tuple[TruthSegment, ...]
    notes: tuple[str, ...] = ()

    @property
    def size(self) -> tuple[int, int]:
        """Height and width, pixels."""
        return self.ids.shape[0], self.ids.shape[1]

    @property
    def is_empty(self) -> bool:
        """Whether nothing is labelled."""
        return not self.segments


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class TruthObject:
    """One annotated object.

    Attributes:
        rle: COCO's compressed run lengths, "size" and "counts".
        area: Pixels, as annotated (COCO's are of the polygon, not of its pixels); decides
            whether the object is small, medium or large.
    """

    category_id: int
    rle: dict[str, Any]
    area: float
    is_crowd: bool


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class InstanceTruth:
    """Objects, which may overlap.

    Attributes:
        size: Height and width, pixels.
    """

    size: tuple[int, int]
    objects: tuple[TruthObject, ...]
    notes: tuple[str, ...] = ()

    @property
    def is_empty(self) -> bool:
        """Whether nothing is labelled."""
        return not self.objects


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class SemanticTruth:
    """The class of every pixel.

    Attributes:
        labels: int32 [H, W], index among the data set's categories, or `UNLABELLED`.
    """

    labels: NDArray[np.int32]
    notes: tuple[str, ...] = ()

    @property
    def size(self) -> tuple[int, int]:
        """Height and width, pixels."""
        return self.labels.shape[0], self.labels.shape[1]

    @property
    def is_empty(self) -> bool:
        """Whether nothing is labelled."""
        return bool((self.labels == UNLABELLED).all())


Truth: TypeAlias = PanopticTruth | InstanceTruth | SemanticTruth
