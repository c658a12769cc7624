"""The comparison as one HTML file: the table, the layers, the images that changed most."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from pathlib import Path

import numpy as np

from m2f.evaluate import html
from m2f.evaluate.comparison.agreement import painted
from m2f.evaluate.comparison.candidates import candidates
from m2f.evaluate.comparison.plots import flips_plot, layers_plot
from m2f.evaluate.comparison.result import STAGES, Change, Comparison
from m2f.evaluate.page import SURE, shown
from m2f.files import replacing
from m2f.runtime.images import Pixels, decode
from m2f.runtime.overlay import draw
from m2f.runtime.results import Prediction

DIFFERENT = np.array((230, 30, 90), np.uint8)
"""Colour of pixels whose category differs."""


def write_comparison(
    path: str | os.PathLike[str],
    comparison: Comparison,
    bundles: Sequence[str | Path],
    images: Mapping[str, Path],
    *,
    backends: Sequence[str] = ("onnxruntime",),
    most: int = 8,
    threads: int | None = None,
) -> None:
    """Writes the page; it needs no server and no other file.

    Args:
        path: Where to; replaced if it exists.
        comparison: What `compare` found.
        bundles: As `compare` was given; they segment the images shown once more.
        images: The file of each image that `comparison` names.
        backends: As `compare` was given.
        most: How many of the most changed images to show.
        threads: CPU cores to use; all unless given.

    Raises:
        DiskError: The page cannot be written.
    """
    most_changed = [change for change in comparison.changes if change.pixels > 0][:most]
    rows: list[str] = []
    if most_changed:
        with candidates(bundles, backends, threads=threads) as opened:
            sessions = {row.name: row.session for row in opened}
            first = comparison.reference.name
            for change in most_changed:
                image = decode(images[change.image])
                answers = [
                    sessions[name](image, task=comparison.task) for name in (first, change.row)
                ]
                rows += _change(change, first, image, *answers)
    title = f"{comparison.reference.bundle} in {len(comparison.rows)} versions"
    with replacing(Path(path)) as stream:
        parts = [*_figures(comparison), *_pictures(comparison, rows)]
        stream.write(html.page(title, parts).encode())


Table = tuple[list[str], list[tuple[str, list[str]]]]
"""Headings, and the rows' names and cells."""


def answers_table(comparison: Comparison) -> Table:
    """How good each row is, and how far from the first."""
    agreement = ["same pixels, %", "mask IoU, %", "same classes, %", "decisions changed, %"]
    rows = []
    for row in comparison.rows:
        metrics, other = row.metrics or {}, row.agreement
        cells = [shown(metrics.get(name)) for name in comparison.headline]
        for name in ("pixels", "mask_iou", "classes"):
            cells.append(shown(getattr(other, name, None)))
        cells.append(shown(sum(row.flips) / len(row.flips) if row.flips else None))
        rows.append((row.name, [row.precision, *cells]))
    return ["", "precision", *comparison.headline, *agreement], rows


def costs_table(comparison: Comparison) -> Table:
    """What each row costs on this machine."""
    rows = []
    for row in comparison.rows:
        peak = "-" if row.peak_memory is None else f"{row.peak_memory / 1e6:.0f}"
        times = [f"{row.milliseconds[stage]:.1f}" for stage in STAGES]
        total = [f"{row.total:.1f}", f"{row.speed:.2f}"]
        rows.append((row.name, [f"{row.bytes / 1e6:.1f}", peak, *times, *total, row.backend]))
    times = [f"{stage}, ms" for stage in STAGES]
    return ["", "file, MB", "peak, MB", *times, "total, ms", "x", "backend"], rows


def _figures(comparison: Comparison) -> Iterator[str]:
    yield (
        f"<p>{comparison.images} images of {escape(comparison.data)}, task "
        f"{comparison.task}. Agreement and changes are with respect to the first row.</p>"
    )
    yield from (f"<p>Note: {escape(text)}.</p>" for text in comparison.remarks)
    first = comparison.reference.name
    names, rows = answers_table(comparison)
    yield html.table(names, rows, reference=first)
    yield (
        "<p>What it costs here. All rows took turns in one process; times are medians over the "
        "images, x is how many times as fast as the first row, image by image. Peak memory is "
        "that of a process that segments one image.</p>"
    )
    names, rows = costs_table(comparison)
    yield html.table(names, rows, reference=first)
    if any(row.layers for row in comparison.rows):
        yield (
            f"<h2>Layer by layer</h2><p>Over {comparison.detailed} images. How far each "
            "layer's output stands above its difference from the first row, in decibels: 20 "
            "more is ten times closer. Mask decisions were those of the first row, so that "
            "what is seen is the layers' own error.</p>"
        )
        yield layers_plot(comparison.rows[1:])
        yield "<p>Mask decisions that change, each network on its own, by decoder layer.</p>"
        yield flips_plot(comparison.rows[1:])


def _pictures(comparison: Comparison, rows: Sequence[str]) -> Iterator[str]:
    if not rows:
        yield "<h2>No pixel changed its category</h2>"
        return
    yield "<h2>What changed most</h2>"
    yield from rows


def _change(
    change: Change, first: str, image: Pixels, before: Prediction, after: Prediction
) -> Iterator[str]:
    name = Path(change.image).name
    yield f"<h3>{escape(name)}: {change.pixels:.2f} % of the pixels differ</h3>"
    yield html.pictures(
        [
            (first, _drawn(before, image)),
            (change.row, _drawn(after, image)),
            ("where they differ", difference_map(before, after, image)),
        ]
    )


def difference_map(before: Prediction, after: Prediction, image: Pixels) -> Pixels:
    """The image in pale gray, with the pixels marked whose category differs."""
    gray = image.mean(axis=2, keepdims=True) * 0.4 + 140
    canvas = np.repeat(gray, 3, axis=2).astype(np.uint8)
    canvas[painted(before, sure=SURE) != painted(after, sure=SURE)] = DIFFERENT
    return canvas


def _drawn(prediction: Prediction, image: Pixels) -> Pixels:
    if prediction.task == "instance":
        prediction = prediction.above(SURE)
    return np.asarray(draw(prediction, image, alpha=0.55, labels=True, boxes=False))
