"""Panoptic quality, with panopticapi's rules for void and crowds.

Kirillov et al., Panoptic Segmentation, CVPR 2019, section 4:

    PQ = sum of IoU over matches / (TP + FP / 2 + FN / 2)

per category, then averaged over the categories that occur or were predicted. Two segments
match if they are of one category and their IoU is above 0.5; a predicted segment's pixels
that are void in the ground truth do not count in the union. Crowds match nothing. Unmatched
predictions are forgiven if more than half of them is void or a crowd of their category: the
last such crowd of the annotation, where panopticapi (evaluation.py, of 2018) finds several.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from m2f.config import Category
from m2f.errors import CheckFailed
from m2f.evaluate.mapping import CategoryMap
from m2f.evaluate.metric import ClassScore, Record, Scores, Value, mean, percent
from m2f.evaluate.truth import VOID, PanopticTruth, Truth
from m2f.runtime.results import Prediction


@dataclass(slots=True)
class Tally:
    """Matches of one category.

    Attributes:
        iou: Sum over matched pairs.
        tp: Matched pairs.
        fp: Predicted segments without a match.
        fn: Segments of the ground truth without one.
    """

    iou: float = 0.0
    tp: int = 0
    fp: int = 0
    fn: int = 0

    def add(self, other: Tally) -> None:
        """Adds another's counts."""
        self.iou += other.iou
        self.tp += other.tp
        self.fp += other.fp
        self.fn += other.fn

    @property
    def weight(self) -> float:
        """The denominator of PQ; 0 where the category neither occurs nor was predicted."""
        return self.tp + 0.5 * self.fp + 0.5 * self.fn

    @property
    def pq(self) -> float | None:
        """Panoptic quality, 0..1."""
        return self.iou / self.weight if self.weight else None

    @property
    def sq(self) -> float | None:
        """Mean IoU of the matches, 0..1; 0 where there are none."""
        return (self.iou / self.tp if self.tp else 0.0) if self.weight else None

    @property
    def rq(self) -> float | None:
        """F1 of the matching, 0..1."""
        return self.tp / self.weight if self.weight else None


def tally(
    truth: PanopticTruth, ids: NDArray[np.int32], segments: Mapping[int, int]
) -> dict[int, Tally]:
    """Matches the segments of one image.

    Args:
        truth: Ground truth, [H, W].
        ids: Predicted segment ids, int32 [H, W]; 0 is void.
        segments: Category id of each predicted segment. Ids that are not in it are void.

    Returns:
        By category id, only those with anything to count.
    """
    overlap, true_area, area = _overlaps(truth.ids, ids)
    known = {segment.id: segment for segment in truth.segments}
    tallies: defaultdict[int, Tally] = defaultdict(Tally)
    found: set[int] = set()
    matched: set[int] = set()
    for (true_id, id_), count in overlap.items():
        segment = known.get(true_id)
        if segment is None or segment.is_crowd or segments.get(id_) != segment.category_id:
            continue
        union = area[id_] + true_area[true_id] - count - overlap.get((VOID, id_), 0)
        if count / union > 0.5:
            tallies[segment.category_id].add(Tally(iou=count / union, tp=1))
            found.add(true_id)
            matched.add(id_)
    for segment in truth.segments:
        if not segment.is_crowd and segment.id not in found:
            tallies[segment.category_id].fn += 1
    crowds = {s.category_id: s.id for s in truth.segments if s.is_crowd}
    for id_, category in segments.items():
        if id_ in matched or id_ not in area:
            continue
        forgiven = overlap.get((VOID, id_), 0)
        if category in crowds:
            forgiven += overlap.get((crowds[category], id_), 0)
        if forgiven / area[id_] <= 0.5:
            tallies[category].fp += 1
    return dict(tallies)


def _overlaps(
    true_ids: NDArray[np.int32], ids: NDArray[np.int32]
) -> tuple[dict[tuple[int, int], int], Counter[int], Counter[int]]:
    """Pixels that each pair of segments shares, and that each segment has."""
    keys, counts = np.unique(true_ids.astype(np.int64) << 32 | ids, return_counts=True)
    overlap: dict[tuple[int, int], int] = {}
    true_area, area = Counter[int](), Counter[int]()
    for key, count in zip(keys.tolist(), counts.tolist(), strict=True):
        true_id, id_ = key >> 32, key & 0xFFFFFFFF
        overlap[true_id, id_] = count
        true_area[true_id] += count
        area[id_] += count
    return overlap, true_area, area


class PanopticQuality:
    """PQ, SQ and RQ of all categories, things and stuff."""

    def __init__(self, categories: CategoryMap) -> None:
        """For predictions of a model whose categories are matched so."""
        self._categories = categories.categories
        ids = [c.id for c in categories.categories]
        self._id_of = [None if i < 0 else ids[i] for i in categories.data_index]

    def measure(self, truth: Truth, prediction: Prediction) -> Record:
        """Compares one image; its score is the PQ of all its segments, classes pooled.

        Raises:
            CheckFailed: The prediction's map shows segments that it does not list.
        """
        assert isinstance(truth, PanopticTruth)
        ids = prediction.segment_ids
        labels = {s.id: s.label for s in prediction.segments}
        unlisted = sorted(set(np.unique(ids).tolist()) - labels.keys() - {VOID})
        if unlisted:
            raise CheckFailed(
                f"the predicted map shows segments {unlisted} that the prediction does not list"
            )
        # What the data set has no category for is no segment; its ids then count as void.
        named = {id_: self._id_of[label] for id_, label in labels.items()}
        segments = {id_: c for id_, c in named.items() if c is not None}
        tallies = tally(truth, ids, segments)
        whole = Tally()
        for one in tallies.values():
            whole.add(one)
        return {
            "score": None if whole.pq is None else percent(whole.pq),
            "classes": {str(c): [t.iou, t.tp, t.fp, t.fn] for c, t in tallies.items()},
        }

    def summarise(self, records: Iterable[Record]) -> Scores:
        """Sums the images' matches up, per category."""
        tallies = {c.id: Tally() for c in self._categories}
        for record in records:
            for category, (iou, tp, fp, fn) in record["classes"].items():
                tallies[int(category)].add(Tally(iou, tp, fp, fn))
        metrics: dict[str, Value] = {}
        for suffix, kind in (("", None), ("_things", True), ("_stuff", False)):
            chosen = [c for c in self._categories if kind in (None, c.is_thing)]
            metrics |= _averages(chosen, tallies, suffix)
        classes = tuple(
            ClassScore(category=c, values=_values(tallies[c.id])) for c in self._categories
        )
        return Scores(metrics=metrics, classes=classes)


def _averages(
    categories: list[Category], tallies: Mapping[int, Tally], suffix: str
) -> dict[str, Value]:
    values = [_values(tallies[c.id]) for c in categories]
    averages: dict[str, Value] = {
        f"{name}{suffix}": mean(v[name] for v in values) for name in ("PQ", "SQ", "RQ")
    }
    return {**averages, f"categories{suffix}": sum(v["PQ"] is not None for v in values)}


def _values(one: Tally) -> dict[str, Value]:
    shares = {"PQ": one.pq, "SQ": one.sq, "RQ": one.rq}
    values: dict[str, Value] = {n: None if v is None else percent(v) for n, v in shares.items()}
    return {**values, "TP": one.tp, "FP": one.fp, "FN": one.fn}
