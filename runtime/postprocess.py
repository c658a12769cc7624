"""From one image's logits to its `Prediction`.

The arithmetic is in `semantic`, `instance` and `panoptic`, one file a task; there the three
conventions are told apart. Full-size arrays are never held for all queries at once. The work
is done by the native library; where there is none, by NumPy.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from m2f.config import Category, Postprocess, Task
from m2f.errors import ShapeError
from m2f.runtime.instance import instance
from m2f.runtime.logits import Frame, check
from m2f.runtime.masks import Regions, regions_of_map, regions_of_masks
from m2f.runtime.native import Library, Masks, library
from m2f.runtime.panoptic import panoptic
from m2f.runtime.results import Prediction, Segment
from m2f.runtime.semantic import semantic


def segment(
    class_logits: NDArray[Any],
    mask_logits: Masks,
    frame: Frame,
    *,
    task: Task,
    rules: Postprocess,
    categories: tuple[Category, ...],
    threads: int | None = None,
    native: Library | None = None,
) -> Prediction:
    """Answers one task for one image.

    Args:
        class_logits: [Q, K + 1]; the last class is "no object".
        mask_logits: [Q, h, w], before the sigmoid.
        frame: Sizes; the whole mask stands for ``frame.padded``.
        task: Which question.
        rules: Convention and thresholds.
        categories: K of them, in the order of the classes.
        threads: CPU cores to use; all unless given.
        native: Does the work where the mask logits are; the CPU's unless given.

    Raises:
        ShapeError: The arrays do not fit each other or the categories.
        CheckFailed: The logits hold NaN or infinity.
    """
    if native is None:
        native = library(threads)
    check(class_logits, mask_logits, native)
    if class_logits.shape[1] != len(categories) + 1:
        raise ShapeError(
            f"the network gives {class_logits.shape[1] - 1} classes, there are "
            f"{len(categories)} categories"
        )
    answer = {"semantic": _semantic, "instance": _instance, "panoptic": _panoptic}[task]
    return answer(class_logits, mask_logits, frame, rules, categories, native)


def _semantic(
    class_logits: NDArray[Any],
    mask_logits: Masks,
    frame: Frame,
    rules: Postprocess,
    categories: tuple[Category, ...],
    native: Library | None,
) -> Prediction:
    label_map = semantic(class_logits, mask_logits, frame, rules, native)
    regions = _regions(label_map, len(categories), native)
    segments = [
        _segment(label, label, None, regions, label, categories)
        for label in map(int, np.flatnonzero(regions.areas))
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
    mask_logits: Masks,
    frame: Frame,
    rules: Postprocess,
    categories: tuple[Category, ...],
    native: Library | None,
) -> Prediction:
    is_thing = [c.is_thing for c in categories]
    found = instance(class_logits, mask_logits, frame, rules, is_thing, native)
    order = np.argsort(-found.scores, kind="stable")
    masks = found.masks.take(order)
    if native is None:
        regions = regions_of_masks(masks)
    else:
        each = native.regions_of_masks(masks.bits, masks.width)
        regions = Regions(each.areas[masks.rows], each.boxes[masks.rows])
    segments = []
    for i, detection in enumerate(order):
        label, score = int(found.labels[detection]), float(found.scores[detection])
        segments.append(_segment(i + 1, label, score, regions, i, categories))
    return Prediction(
        task="instance",
        size=frame.output,
        categories=categories,
        segments=tuple(segments),
        packed=masks,
    )


def _panoptic(
    class_logits: NDArray[Any],
    mask_logits: Masks,
    frame: Frame,
    rules: Postprocess,
    categories: tuple[Category, ...],
    native: Library | None,
) -> Prediction:
    is_thing = [c.is_thing for c in categories]
    found = panoptic(class_logits, mask_logits, frame, rules, is_thing, native)
    regions = _regions(found.segment_ids, len(found.accepted) + 1, native)
    best: dict[int, tuple[float, int]] = {}
    for one in found.accepted:
        best[one.segment] = max(best.get(one.segment, (0.0, 0)), (one.score, one.label))
    segments = [
        _segment(id_, label, score, regions, id_, categories)
        for id_, (score, label) in best.items()
        if regions.areas[id_]
    ]
    return Prediction(
        task="panoptic",
        size=frame.output,
        categories=categories,
        segments=tuple(segments),
        map_=found.segment_ids,
    )


def _regions(ids: NDArray[np.int32], count: int, native: Library | None) -> Regions:
    return regions_of_map(ids, count) if native is None else native.regions_of_map(ids, count)


def _segment(
    id_: int,
    label: int,
    score: float | None,
    regions: Regions,
    index: int,
    categories: tuple[Category, ...],
) -> Segment:
    category = categories[label]
    x, y, width, height = map(int, regions.boxes[index])
    return Segment(
        id=id_,
        label=label,
        name=category.name,
        is_thing=category.is_thing,
        score=score,
        area=int(regions.areas[index]),
        box=(x, y, width, height),
    )
