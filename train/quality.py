"""Panoptic quality of drawn scenes, to watch a model learn; counted by `m2f.evaluate.pq`."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from m2f.evaluate.pq import Tally, tally
from m2f.evaluate.truth import PanopticTruth, TruthSegment


class Quality(NamedTuple):
    """Quality of one class, or the mean over several; all 0..1.

    Attributes:
        pq: Panoptic quality, sq * rq.
        sq: Segmentation quality: mean IoU of matched pairs.
        rq: Recognition quality: F1 of finding segments.
    """

    pq: float
    sq: float
    rq: float


class PanopticQuality:
    """Counts over images.

    Args:
        classes: K.
    """

    def __init__(self, classes: int) -> None:
        self.tallies = [Tally() for _ in range(classes)]

    @property
    def hits(self) -> npt.NDArray[np.int64]:
        """Matched pairs of each class, [K]."""
        return np.array([one.tp for one in self.tallies])

    @property
    def false(self) -> npt.NDArray[np.int64]:
        """Segments found without a match, [K]."""
        return np.array([one.fp for one in self.tallies])

    @property
    def missed(self) -> npt.NDArray[np.int64]:
        """True segments without a match, [K]."""
        return np.array([one.fn for one in self.tallies])

    def add(
        self,
        found: npt.NDArray[np.integer],
        found_classes: Mapping[int, int],
        true: npt.NDArray[np.integer],
        true_classes: Mapping[int, int],
    ) -> None:
        """Counts one image.

        Args:
            found: Segment ids, [H, W]; 0 where none is.
            found_classes: Class index of each id in ``found``.
            true: The same of the truth; 0 is void.
            true_classes: Class index of each id in ``true``.
        """
        segments = tuple(
            TruthSegment(id=i, category_id=kind, is_crowd=False)
            for i, kind in true_classes.items()
        )
        truth = PanopticTruth(ids=true.astype(np.int32), segments=segments)
        for kind, counted in tally(truth, found.astype(np.int32), found_classes).items():
            self.tallies[kind].add(counted)

    def of_class(self, index: int) -> Quality | None:
        """Quality of a class; None if it was neither there nor found."""
        one = self.tallies[index]
        if one.pq is None or one.sq is None or one.rq is None:
            return None
        return Quality(one.pq, one.sq, one.rq)

    def mean(self, classes: Sequence[int]) -> Quality:
        """Mean over those of these classes that occurred."""
        known = [q for q in map(self.of_class, classes) if q is not None]
        if not known:
            return Quality(0.0, 0.0, 0.0)
        pq, sq, rq = np.mean(known, axis=0).tolist()
        return Quality(pq, sq, rq)
