"""One HTML file with the figures, and the worst images beside their ground truth."""

from __future__ import annotations

import os
from collections.abc import Sequence
from html import escape
from pathlib import Path

import numpy as np
from pycocotools import mask as coco  # type: ignore[import-untyped, unused-ignore]

from m2f.config import Category
from m2f.errors import UsageError
from m2f.evaluate import html
from m2f.evaluate.dataset import DataSet, Item
from m2f.evaluate.metric import ClassScore, Value
from m2f.evaluate.predictor import Model, Predictor, opened
from m2f.evaluate.report import Report
from m2f.evaluate.truth import UNLABELLED, InstanceTruth, PanopticTruth, Truth
from m2f.files import replacing
from m2f.runtime.images import Pixels, decode
from m2f.runtime.masks import Mask, PackedMasks, box_of
from m2f.runtime.overlay import draw
from m2f.runtime.results import Prediction, Segment

SURE = 0.5
"""Instances below this score are not drawn."""


def write_page(
    path: str | os.PathLike[str],
    report: Report,
    model: Model,
    data: DataSet,
    *,
    worst: int = 12,
    threads: int | None = None,
) -> None:
    """Writes the page; it needs no server and no other file.

    Args:
        path: Where to; replaced if it exists.
        report: What `evaluate` found.
        model: The same model; it segments the images shown once more.
        data: The same data set.
        worst: How many images to show.
        threads: CPU cores that a bundle may use; all unless given.

    Raises:
        UsageError: The data set lacks the report's images.
        DiskError: The page cannot be written.
    """
    worst_first = report.worst[:worst]
    with opened(model, threads=threads) as source:
        data = data.of_model(source.predictor.metadata.categories)
        items = {item.key: item for item in data.items}
        if any(image.key not in items for image in worst_first):
            raise UsageError(f"{data.name} is not what the report is about, {report.data}")
        rows = [
            _row(
                f"{image.key}: {image.score:.1f}",
                items[image.key],
                report,
                source.predictor,
                data,
            )
            for image in worst_first
        ]
    title = f"{report.model} on {report.data}, {report.task}"
    metrics = [(name, [shown(value)]) for name, value in report.scores.metrics.items()]
    parts = [
        f"<p>{len(report.images)} images; in percent, but for the numbers of categories.</p>",
        html.table(["metric", ""], metrics),
        *(f"<p>Note: {escape(text)}.</p>" for text in report.remarks()),
        f"<h2>The {len(worst_first)} worst images</h2>",
        *rows,
        "<h2>Classes</h2>",
        _classes(report.scores.classes),
    ]
    with replacing(Path(path)) as stream:
        stream.write(html.page(title, parts).encode())


def prediction_from_truth(truth: Truth, categories: tuple[Category, ...]) -> Prediction:
    """Ground truth in the form of a prediction, to be drawn as one; without scores."""
    index = {c.id: i for i, c in enumerate(categories)}
    if isinstance(truth, InstanceTruth):
        labels = [index[o.category_id] for o in truth.objects]
        masks = np.array([coco.decode(o.rle) for o in truth.objects], np.uint8)
        masks = masks.reshape(-1, *truth.size)
        segments = [
            _segment(i + 1, label, mask > 0, categories)
            for i, (label, mask) in enumerate(zip(labels, masks, strict=True))
        ]
        packed = PackedMasks(np.packbits(masks, axis=2), np.arange(len(masks)), truth.size[1])
        return Prediction(
            task="instance",
            size=truth.size,
            categories=categories,
            segments=tuple(segments),
            packed=packed,
        )
    if isinstance(truth, PanopticTruth):
        known = {s.id: index[s.category_id] for s in truth.segments}
        values = truth.ids
    else:
        known = {i: i for i in np.unique(truth.labels).tolist() if i != UNLABELLED}
        values = truth.labels
    numbered = np.zeros(truth.size, np.int32)
    segments = []
    for number, (value, label) in enumerate(known.items(), 1):
        mask: Mask = np.equal(values, value)
        numbered[mask] = number
        segments.append(_segment(number, label, mask, categories))
    return Prediction(
        task="panoptic",
        size=truth.size,
        categories=categories,
        segments=tuple(segments),
        map_=numbered,
    )


def _segment(number: int, label: int, mask: Mask, categories: Sequence[Category]) -> Segment:
    return Segment(
        id=number,
        label=label,
        name=categories[label].name,
        is_thing=categories[label].is_thing,
        score=None,
        area=int(np.count_nonzero(mask)),
        box=box_of(mask),
    )


def _row(caption: str, item: Item, report: Report, predictor: Predictor, data: DataSet) -> str:
    image = decode(item.image)
    truth = prediction_from_truth(data.truth(item), data.categories)
    found = predictor(image, task=report.task)
    if report.task == "instance":
        found = found.above(SURE)
    return html.pictures(
        [
            (caption, image),
            ("ground truth", _drawn(truth, image)),
            ("predicted", _drawn(found, image)),
        ]
    )


def _drawn(prediction: Prediction, image: Pixels) -> Pixels:
    return np.asarray(draw(prediction, image, alpha=0.55, labels=True, boxes=False))


def _classes(classes: Sequence[ClassScore]) -> str:
    columns = list(classes[0].values)
    rows = [(one.category.name, [shown(v) for v in one.values.values()]) for one in classes]
    return html.table(["class", *columns], rows)


def shown(value: Value) -> str:
    """A figure for people: counts as they are, percentages with two places."""
    if value is None:
        return "-"
    return str(value) if isinstance(value, int) else f"{value:.2f}"
