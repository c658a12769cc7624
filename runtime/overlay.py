"""Pictures of predictions: colours, outlines and names over the image."""

from __future__ import annotations

import colorsys
from collections import Counter

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from m2f.errors import ShapeError, UsageError
from m2f.runtime.images import Pixels
from m2f.runtime.masks import Mask
from m2f.runtime.results import Prediction, Segment

Colour = tuple[int, int, int]
Rectangle = tuple[float, float, float, float]

LEAST_LABELLED = 5e-4
"""Segments below this share of the image stay without a name."""


def draw(
    prediction: Prediction, image: Pixels, *, alpha: float, labels: bool, boxes: bool
) -> Image.Image:
    """Draws every segment of ``prediction`` over ``image``; see `Prediction.overlay`.

    Raises:
        ShapeError: The image has another size than the prediction.
        UsageError: ``alpha`` is not within 0..1.
    """
    if image.shape[:2] != prediction.size:
        raise ShapeError(
            f"the image is {image.shape[0]}x{image.shape[1]}, the prediction is of one of "
            f"{prediction.size[0]}x{prediction.size[1]}; pass the image that was segmented"
        )
    if not 0 <= alpha <= 1:
        raise UsageError(f"alpha must be from 0 to 1, got {alpha}")
    canvas = image.copy()
    line = max(1, round(min(prediction.size) / 400))
    colours = _colours(prediction)
    if prediction.task == "instance":
        for i in reversed(range(len(prediction))):  # the surest on top
            _paint(canvas, prediction, i, colours[i], alpha, line)
    else:
        _paint_map(canvas, prediction, colours, alpha, line)
    picture = Image.fromarray(canvas)
    if boxes:
        _draw_boxes(picture, prediction, colours, line)
    if labels:
        _draw_labels(picture, prediction, colours)
    return picture


def _colours(prediction: Prediction) -> list[Colour]:
    """The category's colour; later things of the same category get neighbouring hues."""
    seen: Counter[int] = Counter()
    colours = []
    for segment in prediction.segments:
        colour = prediction.categories[segment.label].colour
        if segment.is_thing and prediction.task != "semantic":
            colour = _variant(colour, seen[segment.label])
            seen[segment.label] += 1
        colours.append(colour)
    return colours


def _variant(colour: Colour, number: int) -> Colour:
    if number == 0:
        return colour
    hue, saturation, value = colorsys.rgb_to_hsv(*(c / 255 for c in colour))
    step = (number + 1) // 2 * (1 if number % 2 else -1)
    hue = (hue + 0.07 * step) % 1
    value = max(0.55, value) * (1, 0.8, 0.9)[number % 3]
    r, g, b = colorsys.hsv_to_rgb(hue, max(0.5, saturation), value)
    return round(r * 255), round(g * 255), round(b * 255)


def _mix(pixels: Pixels, colour: NDArray[np.uint8], alpha: float) -> Pixels:
    share = round(alpha * 256)
    mixed = pixels.astype(np.uint16) * (256 - share) + colour.astype(np.uint16) * share
    return (mixed >> 8).astype(np.uint8)


def _paint(
    canvas: Pixels, prediction: Prediction, index: int, colour: Colour, alpha: float, line: int
) -> None:
    x, y, w, h = prediction.segments[index].box
    if not w:
        return
    mask = prediction.mask(index)[y : y + h, x : x + w]
    part = canvas[y : y + h, x : x + w]
    part[mask] = _mix(part[mask], np.array(colour, np.uint8), alpha)
    part[_rim(mask, line)] = colour


def _rim(mask: Mask, line: int) -> Mask:
    """The mask's outermost ``line`` pixels."""
    core = np.pad(mask, 1)
    for _ in range(line):
        core[1:-1, 1:-1] &= core[:-2, 1:-1] & core[2:, 1:-1] & core[1:-1, :-2] & core[1:-1, 2:]
    return mask & ~core[1:-1, 1:-1]


def _paint_map(
    canvas: Pixels, prediction: Prediction, colours: list[Colour], alpha: float, line: int
) -> None:
    semantic = prediction.task == "semantic"
    ids = prediction.label_map if semantic else prediction.segment_ids
    top = 1 + max((s.id for s in prediction.segments), default=0)
    table, shown = np.zeros((top, 3), np.uint8), np.zeros(top, np.bool_)
    for segment, colour in zip(prediction.segments, colours, strict=True):
        table[segment.id], shown[segment.id] = colour, True
    edge = _edges(ids, line)
    for start in range(0, len(ids), 256):  # some rows at a time, for memory
        part = slice(start, start + 256)
        tint = table[ids[part]]
        mixed = _mix(canvas[part], tint, alpha)
        mixed[edge[part]] = _mix(tint[edge[part]], np.full(3, 255, np.uint8), 0.6)
        np.copyto(canvas[part], mixed, where=shown[ids[part]][..., None])


def _edges(ids: NDArray[np.int32], line: int) -> Mask:
    """Pixels up to ``line`` from a neighbour with another id, on the left or upper side."""
    edge = np.zeros(ids.shape, np.bool_)
    for shift in range(1, line + 1):
        edge[:, :-shift] |= ids[:, :-shift] != ids[:, shift:]
        edge[:-shift] |= ids[:-shift] != ids[shift:]
    return edge


def _draw_boxes(
    picture: Image.Image, prediction: Prediction, colours: list[Colour], line: int
) -> None:
    pen = ImageDraw.Draw(picture)
    for segment, colour in zip(prediction.segments, colours, strict=True):
        x, y, w, h = segment.box
        if segment.is_thing and w:
            pen.rectangle((x, y, x + w - 1, y + h - 1), outline=colour, width=2 * line)


def _draw_labels(picture: Image.Image, prediction: Prediction, colours: list[Colour]) -> None:
    height, width = prediction.size
    size = float(min(max(10, round(0.022 * (height * width) ** 0.5)), 64))
    font = ImageFont.load_default(size=size)
    pen = ImageDraw.Draw(picture, "RGBA")
    taken: list[Rectangle] = []
    largest_first = sorted(range(len(prediction)), key=lambda i: -prediction.segments[i].area)
    for i in largest_first:
        segment = prediction.segments[i]
        if segment.area < LEAST_LABELLED * height * width:
            break
        text = _text(segment)
        left, top, right, bottom = pen.textbbox((0, 0), text, font=font)
        pad = size / 4
        w, h = right - left + 2 * pad, bottom - top + 2 * pad
        x, y = _inner_point(prediction.mask(i), segment.box)
        spot = _free_spot(x - w / 2, y - h / 2, w, h, (width, height), taken)
        if spot is None:
            continue
        taken.append(spot)
        pen.rounded_rectangle(spot, radius=pad, fill=(*_dark(colours[i]), 215))
        pen.text((spot[0] + pad - left, spot[1] + pad - top), text, font=font, fill="white")


def _text(segment: Segment) -> str:
    if segment.score is None or not segment.is_thing:
        return segment.name
    return f"{segment.name} {segment.score:.2f}"


def _dark(colour: Colour) -> Colour:
    """Dark enough that white text on it can be read (contrast above 4.5 or so)."""
    light = (0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2]) / 255
    shrink = min(1.0, 0.35 / max(light, 1e-3))
    return round(colour[0] * shrink), round(colour[1] * shrink), round(colour[2] * shrink)


def _inner_point(mask: Mask, box: tuple[int, int, int, int]) -> tuple[float, float]:
    """A point deep inside the mask: what is left last when a coarse copy is worn down."""
    x, y, w, h = box
    step = max(1, -(-max(w, h) // 48))
    coarse = np.pad(mask[y : y + h : step, x : x + w : step], 1)
    left = coarse
    while left.any():
        coarse = left
        left = coarse.copy()
        left[1:-1, 1:-1] &= (
            coarse[:-2, 1:-1] & coarse[2:, 1:-1] & coarse[1:-1, :-2] & coarse[1:-1, 2:]
        )
    points = np.argwhere(coarse)
    if not len(points):  # nothing of it falls on the coarse grid
        return x + w / 2, y + h / 2
    middle = points[((points - points.mean(axis=0)) ** 2).sum(axis=1).argmin()]
    return x + (middle[1] - 1) * step, y + (middle[0] - 1) * step


def _free_spot(
    x: float, y: float, w: float, h: float, limit: tuple[int, int], taken: list[Rectangle]
) -> Rectangle | None:
    """The rectangle itself, or moved up or down a little, where no other label is."""
    if w > limit[0] or h > limit[1]:
        return None
    x = min(max(x, 0), limit[0] - w)
    for shift in (0.0, -1.1, 1.1, -2.2, 2.2):
        top = min(max(y + shift * h, 0), limit[1] - h)
        spot = (x, top, x + w, top + h)
        if not any(_overlap(spot, other) for other in taken):
            return spot
    return None


def _overlap(a: Rectangle, b: Rectangle) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
