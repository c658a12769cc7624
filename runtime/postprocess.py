"""From one image's logits to its `Prediction`.

The arithmetic is in `semantic`, `instance` and `panoptic`, one file a task; there the three
conventions are told apart. Full-size arrays are never held for all queries at once.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from m2f.config import Category, Postprocess, Task
from m2f.errors import ShapeError
from m2f.runtime.instance import instance
from m2f.runtime.logits import Frame, check
from m2f.runtime.masks import box_of
from m2f.runtime.panoptic import panoptic
from m2f.runtime.results import Prediction, Segment
from m2f.runtime.semantic import semantic


def segment(
    class_logits: NDArray[Any],
    mask_logits: NDArray[Any],
    frame: Frame,
    *,
    task: Task,
    rules: Postprocess,
    categories: tuple[Category, ...],
) -> Prediction:
    """Answers one task for one image.

    Args:
        class_logits: [Q, K + 1]; the last class is "no object".
        mask_logits: [Q, h, w], before the sigmoid.
        frame: Sizes; the whole mask stands for ``frame.padded``.
        task: Which question.
        rules: Convention and thresholds.
        categories: K of them, in the order of the classes.

    Raises:
        ShapeError: The arrays do not fit each other or the categories.
        CheckFailed: The logits hold NaN or infinity.
    """
    check(class_logits, mask_logits)
    if class_logits.shape[1] != len(categories) + 1:
        raise ShapeError(
            f"the network gives {class_logits.shape[1] - 1} classes, there are "
            f"{len(categories)} categories"
        )
    answer = {"semantic": _semantic, "instance": _instance, "panoptic": _panoptic}[task]
    return answer(class_logits, mask_logits, frame, rules, categories)


def _semantic(
    class_logits: NDArray[Any],
    mask_logits: NDArray[Any],
    frame: Frame,
    rules: Postprocess,
    categories: tuple[Category, ...],
) -> Prediction:
    label_map = semantic(class_logits, mask_logits, frame, rules)
    areas = np.bincount(label_map.ravel(), minlength=len(categories))
    segments = [
        _segment(label, label, None, int(areas[label]), box_of(label_map == label), categories)
        for label in map(int, np.flatnonzero(areas))
    ]
    return Prediction(
        task="semantic",
        size=frame.output,
        categories=categories,
        segments=tuple(segments),
        map_=label_map,
    )


def _instance(
    class_logits: NDArray[Any],
    mask_logits: NDArray[Any],
    frame: Frame,
    rules: Postprocess,
    categories: tuple[Category, ...],
) -> Prediction:
    found = instance(class_logits, mask_logits, frame, rules, [c.is_thing for c in categories])
    order = np.argsort(-found.scores, kind="stable")
    masks = found.masks.take(order)
    segments = []
    for i, detection in enumerate(order):
        mask = masks[i]
        label, score = int(found.labels[detection]), float(found.scores[detection])
        area = int(np.count_nonzero(mask))
        segments.append(_segment(i + 1, label, score, area, box_of(mask), categories))
    return Prediction(
        task="instance",
        size=frame.output,
        categories=categories,
        segments=tuple(segments),
        packed=masks,
    )


def _panoptic(
    class_logits: NDArray[Any],
    mask_logits: NDArray[Any],
    frame: Frame,
    rules: Postprocess,
    categories: tuple[Category, ...],
) -> Prediction:
    found = panoptic(class_logits, mask_logits, frame, rules, [c.is_thing for c in categories])
    areas = np.bincount(found.segment_ids.ravel(), minlength=len(found.accepted) + 1)
    best: dict[int, tuple[float, int]] = {}
    for one in found.accepted:
        best[one.segment] = max(best.get(one.segment, (0.0, 0)), (one.score, one.label))
    segments = [
        _segment(
            id_, label, score, int(areas[id_]), box_of(found.segment_ids == id_), categories
        )
        for id_, (score, label) in best.items()
        if areas[id_]
    ]
    return Prediction(
        task="panoptic",
        size=frame.output,
        categories=categories,
        segments=tuple(segments),
        map_=found.segment_ids,
    )


def _segment(
    id_: int,
    label: int,
    score: float | None,
    area: int,
    box: tuple[int, int, int, int],
    categories: tuple[Category, ...],
) -> Segment:
    category = categories[label]
    return Segment(
        id=id_,
        label=label,
        name=category.name,
        is_thing=category.is_thing,
        score=score,
        area=area,
        box=box,
    )
