"""The loss curve as a picture, drawn with Pillow alone."""

import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from m2f.files import replacing

SIZE = (800, 400)
"""Width and height, pixels."""

_LEFT, _TOP, _RIGHT, _BOTTOM = 60, 24, 16, 36
_INK, _GRID, _EACH, _MEAN = (60, 60, 60), (225, 225, 225), (170, 195, 235), (30, 80, 170)


def draw_curve(records: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draws the loss of every step, and its running mean over it.

    Args:
        records: With "step" and "loss", at least one.
        path: PNG; replaced if it exists.

    Raises:
        DiskError: It cannot be written.
    """
    steps = np.array([record["step"] for record in records], np.float64)
    loss = np.array([record["loss"] for record in records], np.float64)
    picture = Image.new("RGB", SIZE, "white")
    pen = ImageDraw.Draw(picture)
    low, high = 0.0, max(float(np.percentile(loss, 99.5)), 1e-6) * 1.05
    last = max(float(steps[-1]), 1.0)
    width, height = SIZE[0] - _LEFT - _RIGHT, SIZE[1] - _TOP - _BOTTOM

    def place(step: npt.ArrayLike, value: npt.ArrayLike) -> list[tuple[float, float]]:
        x = _LEFT + np.asarray(step) / last * width
        y = _TOP + (1 - (np.clip(value, low, high) - low) / (high - low)) * height
        return list(zip(x.tolist(), y.tolist(), strict=True))

    for value in _ticks(high):
        (_, y), *_ = place([0], [value])
        pen.line([(_LEFT, y), (SIZE[0] - _RIGHT, y)], fill=_GRID)
        pen.text((_LEFT - 8, y), f"{value:g}", fill=_INK, anchor="rm")
    for step in _ticks(last):
        (x, _), *_ = place([step], [0])
        pen.text((x, SIZE[1] - _BOTTOM + 8), f"{step:g}", fill=_INK, anchor="mt")
    pen.text((_LEFT, 6), f"loss by step; {loss[-1]:.2f} at the last", fill=_INK)
    pen.line([(_LEFT, _TOP), (_LEFT, _TOP + height), (SIZE[0] - _RIGHT, _TOP + height)], _INK)
    if len(loss) > 1:
        pen.line(place(steps, loss), fill=_EACH)
        pen.line(place(steps, _running_mean(loss)), fill=_MEAN, width=2)
    stream = io.BytesIO()
    picture.save(stream, "PNG")
    with replacing(path) as file:
        file.write(stream.getvalue())


def _running_mean(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Mean over a twentieth of the run around each step, less at its ends."""
    half = max(len(values) // 40, 1)
    sums = np.concatenate([[0.0], np.cumsum(values)])
    index = np.arange(len(values))
    start, stop = np.maximum(index - half, 0), np.minimum(index + half + 1, len(values))
    mean: npt.NDArray[np.float64] = (sums[stop] - sums[start]) / (stop - start)
    return mean


def _ticks(end: float) -> list[float]:
    """Four to ten round numbers from 0 to at most ``end``."""
    step = 10.0 ** math.floor(math.log10(end))
    step /= next(d for d in (1, 2, 5) if end / step * d >= 4)
    return [step * i for i in range(int(end / step) + 1)]
