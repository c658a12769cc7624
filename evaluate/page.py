"""One HTML file with the figures, and the worst images beside their ground truth."""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Sequence
from html import escape
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as coco  # type: ignore[import-untyped, unused-ignore]

from m2f.config import Category
from m2f.errors import UsageError
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

WIDTH = 560
"""Pixels; larger pictures are shrunk before they are put into the page."""

SURE = 0.5
"""Instances below this score are not drawn."""

_STYLE = """
:root { color-scheme: light dark; font: 15px/1.45 system-ui, sans-serif; }
body { max-width: 1200px; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; margin: 1rem 0 2rem; }
th, td { padding: .2rem .8rem; text-align: right; border-bottom: 1px solid #8884; }
th:first-child, td:first-child { text-align: left; }
.row { display: grid; grid-template-columns: repeat(3, 1fr); gap: .6rem; margin-bottom: 2rem; }
figure { margin: 0; } img { width: 100%; height: auto; border-radius: 4px; }
figcaption { opacity: .7; }
"""


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
    shown = report.worst[:worst]
    with opened(model, threads=threads) as source:
        data = data.of_model(source.predictor.metadata.categories)
        items = {item.key: item for item in data.items}
        if any(image.key not in items for image in shown):
            raise UsageError(f"{data.name} is not what the report is about, {report.data}")
        rows = [
            _row(
                f"{image.key}: {image.score:.1f}",
                items[image.key],
                report,
                source.predictor,
                data,
            )
            for image in shown
        ]
    title = f"{escape(report.model)} on {escape(report.data)}, {report.task}"
    headings = {name: [value] for name, value in report.scores.metrics.items()}
    parts = [
        "<!doctype html>",
        f'<html lang="en"><meta charset="utf-8"><title>{title}</title>',
        f"<style>{_STYLE}</style><h1>{title}</h1>",
        f"<p>{len(report.images)} images; in percent, but for the numbers of categories.</p>",
        _table(["metric", ""], [(name, values) for name, values in headings.items()]),
        "".join(f"<p>Note: {escape(text)}.</p>" for text in report.remarks()),
        f"<h2>The {len(shown)} worst images</h2>",
        *rows,
        "<h2>Classes</h2>",
        _classes(report.scores.classes),
        "</html>",
    ]
    with replacing(Path(path)) as stream:
        stream.write("\n".join(parts).encode())


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
    pictures = {
        caption: image,
        "ground truth": _drawn(truth, image),
        "predicted": _drawn(found, image),
    }
    figures = "".join(
        f'<figure><img alt="{escape(text)}" src="{_embedded(pixels)}">'
        f"<figcaption>{escape(text)}</figcaption></figure>"
        for text, pixels in pictures.items()
    )
    return f'<div class="row">{figures}</div>'


def _drawn(prediction: Prediction, image: Pixels) -> Pixels:
    return np.asarray(draw(prediction, image, alpha=0.55, labels=True, boxes=False))


def _embedded(pixels: NDArray[np.uint8]) -> str:
    picture = Image.fromarray(pixels)
    picture.thumbnail((WIDTH, 2 * WIDTH))
    stream = io.BytesIO()
    picture.save(stream, format="JPEG", quality=88)
    return "data:image/jpeg;base64," + base64.b64encode(stream.getvalue()).decode("ascii")


def _classes(classes: Sequence[ClassScore]) -> str:
    columns = list(classes[0].values)
    rows = [(one.category.name, list(one.values.values())) for one in classes]
    return _table(["class", *columns], rows)


def _table(headings: Sequence[str], rows: Sequence[tuple[str, Sequence[Value]]]) -> str:
    head = "".join(f"<th>{escape(text)}</th>" for text in headings)
    body = "".join(
        f"<tr><td>{escape(name)}</td>{''.join(f'<td>{shown(v)}</td>' for v in values)}</tr>"
        for name, values in rows
    )
    return f"<table><tr>{head}</tr>{body}</table>"


def shown(value: Value) -> str:
    """A figure for people: counts as they are, percentages with two places."""
    if value is None:
        return "-"
    return str(value) if isinstance(value, int) else f"{value:.2f}"
