"""Panoptic quality (Kirillov et al., CVPR 2019), small: to watch a model learn.

Rules of the official panopticapi where they apply to scenes: a pair matches if it agrees in
class and its IoU, void left out, is above one half; a prediction that is mostly void counts
neither way. Scenes have no crowds.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt


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
        self.iou = np.zeros(classes)
        self.hits, self.false, self.missed = (np.zeros(classes, np.int64) for _ in range(3))

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
        width = int(found.max()) + 1
        pairs = np.bincount((true.astype(np.int64) * width + found).ravel())
        table = np.zeros((int(true.max()) + 1, width), np.int64)
        table.ravel()[: len(pairs)] = pairs
        true_area, found_area, void = table.sum(1), table.sum(0), table[0]
        matched_true, matched_found = set(), set()
        for t, f in zip(*np.nonzero(table), strict=True):
            if not t or not f or true_classes[int(t)] != found_classes[int(f)]:
                continue
            union = true_area[t] + found_area[f] - table[t, f] - void[f]
            if (iou := table[t, f] / union) > 0.5:
                self.iou[true_classes[int(t)]] += iou
                self.hits[true_classes[int(t)]] += 1
                matched_true.add(t)
                matched_found.add(f)
        for t, kind in true_classes.items():
            if t not in matched_true:
                self.missed[kind] += 1
        for f, kind in found_classes.items():
            if f not in matched_found and void[f] <= 0.5 * found_area[f]:
                self.false[kind] += 1

    def of_class(self, index: int) -> Quality | None:
        """Quality of a class; None if it was neither there nor found."""
        hits = int(self.hits[index])
        segments = hits + 0.5 * (self.false[index] + self.missed[index])
        if not segments:
            return None
        sq = float(self.iou[index]) / hits if hits else 0.0
        return Quality(float(self.iou[index] / segments), sq, float(hits / segments))

    def mean(self, classes: Sequence[int]) -> Quality:
        """Mean over those of these classes that occurred."""
        known = [q for q in map(self.of_class, classes) if q is not None]
        if not known:
            return Quality(0.0, 0.0, 0.0)
        pq, sq, rq = np.mean(known, axis=0).tolist()
        return Quality(pq, sq, rq)
