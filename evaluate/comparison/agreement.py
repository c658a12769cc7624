"""How far two answers to one image are apart: queries, masks, pixels."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from m2f.evaluate.check import mask_iou
from m2f.evaluate.metric import mean, percent
from m2f.runtime.results import Prediction

Array = NDArray[Any]
NOTHING = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """One answer, or the mean of many, against the reference's; percent.

    Only queries that the reference takes for objects count: what the others say never reaches
    a result.

    Attributes:
        pixels: Pixels of the image that get the same category.
        mask_iou: Mean overlap of the queries' masks; None where there is no such query.
        classes: Queries that keep their class; None where there is no such query.
    """

    pixels: float
    mask_iou: float | None
    classes: float | None

    def to_json(self) -> dict[str, float | None]:
        """Ready for ``json.dump``."""
        return asdict(self)


def agreement(
    reference: tuple[Array, Array, Prediction], other: tuple[Array, Array, Prediction]
) -> Agreement:
    """Compares class logits [Q, K + 1], mask logits [Q, h, w] and the prediction of each."""
    (classes, masks, answer), (classes_, masks_, answer_) = reference, other
    kept = np.flatnonzero(classes.argmax(-1) < classes.shape[-1] - 1)
    same = painted(answer) == painted(answer_)
    if not len(kept):
        return Agreement(pixels=percent(same.mean()), mask_iou=None, classes=None)
    overlap = mask_iou(masks[kept] > 0, masks_[kept] > 0)
    unchanged = classes[kept].argmax(-1) == classes_[kept].argmax(-1)
    return Agreement(
        pixels=percent(same.mean()),
        mask_iou=percent(overlap.mean()),
        classes=percent(unchanged.mean()),
    )


def mean_agreement(of: Iterable[Agreement]) -> Agreement:
    """Over images; those without a query of interest do not count for queries."""
    every = list(of)
    return Agreement(
        pixels=sum(one.pixels for one in every) / len(every),
        mask_iou=mean(one.mask_iou for one in every),
        classes=mean(one.classes for one in every),
    )


def painted(prediction: Prediction, *, sure: float = 0.5) -> NDArray[np.int32]:
    """Category index at every pixel, [H, W]; -1 where there is nothing.

    Instances overlap: the ones with the best score are on top, those below ``sure`` left out.
    """
    if prediction.task != "instance":
        return prediction.label_map
    canvas = np.full(prediction.size, NOTHING, np.int32)
    shown = prediction.above(sure)
    for index in reversed(range(len(shown))):
        canvas[shown.mask(index)] = shown.segments[index].label
    return canvas
