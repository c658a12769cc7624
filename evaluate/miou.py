"""Semantic metrics from one confusion matrix, as detectron2's SemSegEvaluator forms them.

A category's IoU is TP / (labelled + predicted - TP) over all images together; unlabelled
pixels count nowhere. Means are over the categories that occur in the ground truth.

    mIoU  mean IoU
    fwIoU mean IoU weighted by labelled pixels
    mACC  mean of TP / labelled
    pACC  share of labelled pixels that are right
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from m2f.evaluate.mapping import CategoryMap
from m2f.evaluate.metric import ClassScore, Record, Scores, Value, mean, percent
from m2f.evaluate.truth import UNLABELLED, PanopticTruth, SemanticTruth, Truth
from m2f.runtime.results import Prediction


def confusion(
    labels: NDArray[np.int32], predicted: NDArray[np.int32], categories: int
) -> NDArray[np.int64]:
    """Counts pixels.

    Args:
        labels: Indices [H, W], `UNLABELLED` where there is none.
        predicted: Indices [H, W], -1 where it is none of the categories.
        categories: K.

    Returns:
        [K, K + 1]: by label, and by prediction; the last column is "none".
    """
    valid = labels != UNLABELLED
    columns = categories + 1
    pairs = labels[valid].astype(np.int64) * columns + predicted[valid] % columns
    return np.bincount(pairs, minlength=categories * columns).reshape(categories, columns)


class SemanticQuality:
    """mIoU and its kin."""

    def __init__(self, categories: CategoryMap) -> None:
        """For predictions of a model whose categories are matched so."""
        self._categories = categories.categories
        self._index = {c.id: i for i, c in enumerate(categories.categories)}
        self._data_index = categories.data_index

    def measure(self, truth: Truth, prediction: Prediction) -> Record:
        """Compares one image; its score is its own mIoU."""
        labels = semantic_truth(truth, self._index).labels
        predicted = self._data_index[prediction.label_map]
        matrix = confusion(labels, predicted, len(self._categories))
        rows, columns = np.nonzero(matrix)
        counts = matrix[rows, columns]
        return {
            "score": _metrics(matrix)["mIoU"],
            "confusion": np.stack([rows, columns, counts], axis=1).tolist(),
        }

    def summarise(self, records: Iterable[Record]) -> Scores:
        """Sums the images' confusion matrices up."""
        k = len(self._categories)
        matrix = np.zeros((k, k + 1), np.int64)
        for record in records:
            for row, column, count in record["confusion"]:
                matrix[row, column] += count
        return Scores(
            metrics=_metrics(matrix),
            classes=tuple(
                ClassScore(category=c, values={"IoU": iou, "ACC": accuracy, "pixels": pixels})
                for c, iou, accuracy, pixels in zip(
                    self._categories,
                    _ious(matrix),
                    _accuracies(matrix),
                    matrix.sum(axis=1).tolist(),
                    strict=True,
                )
            ),
        )


def semantic_truth(truth: Truth, index: dict[int, int]) -> SemanticTruth:
    """The class of every pixel; segments, crowds among them, take their category's.

    Args:
        truth: Semantic or panoptic.
        index: Among the data set's categories, by id.
    """
    if isinstance(truth, SemanticTruth):
        return truth
    assert isinstance(truth, PanopticTruth)
    present, where = np.unique(truth.ids, return_inverse=True)
    labels = {s.id: index[s.category_id] for s in truth.segments}
    table = np.array([labels.get(i, UNLABELLED) for i in present.tolist()], np.int32)
    return SemanticTruth(labels=table[where].reshape(truth.size), notes=truth.notes)


def _ious(matrix: NDArray[np.int64]) -> list[float | None]:
    right = np.diagonal(matrix)
    labelled, predicted = matrix.sum(axis=1), matrix[:, :-1].sum(axis=0)
    union = labelled + predicted - right
    return [
        percent(r / u) if n else None for r, u, n in zip(right, union, labelled, strict=True)
    ]


def _accuracies(matrix: NDArray[np.int64]) -> list[float | None]:
    right, labelled = np.diagonal(matrix), matrix.sum(axis=1)
    return [percent(r / n) if n else None for r, n in zip(right, labelled, strict=True)]


def _metrics(matrix: NDArray[np.int64]) -> dict[str, Value]:
    labelled = matrix.sum(axis=1)
    total = int(labelled.sum())
    ious = _ious(matrix)
    weighted = sum(
        iou * int(pixels) for iou, pixels in zip(ious, labelled, strict=True) if iou is not None
    )
    return {
        "mIoU": mean(ious),
        "fwIoU": weighted / total if total else None,
        "mACC": mean(_accuracies(matrix)),
        "pACC": percent(np.trace(matrix) / total) if total else None,
        "categories": sum(iou is not None for iou in ious),
    }
