"""A handful of photographs in the public domain, annotated by hand.

The sample model is trained on them, and it is shown on them: that is a demonstration of the
program, not of generalisation. Sources and licences: photographs/README.md.
"""

import functools
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from m2f.config import Category
from m2f.train.coco import read_panoptic
from m2f.train.scenes import Scene, visible
from m2f.train.textures import Size

FOLDER = Path(__file__).parent / "photographs"

_THINGS: dict[str, tuple[int, int, int]] = {
    "cat": (255, 170, 90),
    "raccoon": (120, 120, 170),
    "person": (240, 80, 110),
    "rocket": (240, 240, 130),
    "spoon": (150, 220, 220),
    "saucer": (200, 70, 40),
    "flag": (90, 90, 230),
    "helmet": (110, 240, 160),
    "tower": (170, 110, 230),
    "camera": (60, 190, 190),
}
_STUFF: dict[str, tuple[int, int, int]] = {
    "building": (150, 150, 110),
    "plants": (70, 150, 40),
    "ground": (110, 90, 80),
    "table": (100, 60, 90),
}
FIRST_ID = 16
"""Ids go on after those of `m2f.train.scenes`."""

CATEGORIES: tuple[Category, ...] = tuple(
    Category(id=i, name=name, colour=colour, is_thing=name in _THINGS)
    for i, (name, colour) in enumerate({**_THINGS, **_STUFF}.items(), start=FIRST_ID)
)
"""What the photographs show and the scenes do not."""


@functools.cache
def photographs() -> dict[str, Scene]:
    """All of them, by name."""
    return read_panoptic(FOLDER)


def view(rng: np.random.Generator, size: Size) -> Scene:
    """One of them as a training example: scaled, cropped, perhaps mirrored, recoloured.

    Args:
        rng: Source of chance.
        size: Height and width of the view, pixels.
    """
    known = photographs()
    photograph = known[sorted(known)[rng.integers(len(known))]]
    h, w = photograph.segments.shape
    # From just covering the view, which shows nearly all of the picture, to a close-up.
    scale = max(size[0] / h, size[1] / w) * rng.uniform(
        1.0, 1.6 if rng.random() < 0.5 else 1.05
    )
    tall, wide = max(round(h * scale), size[0]), max(round(w * scale), size[1])
    top, left = rng.integers(tall - size[0] + 1), rng.integers(wide - size[1] + 1)
    crop = (slice(top, top + size[0]), slice(left, left + size[1]))
    picture = Image.fromarray(photograph.image).resize((wide, tall), Image.Resampling.BILINEAR)
    labels = Image.fromarray(photograph.segments).resize((wide, tall), Image.Resampling.NEAREST)
    image, segments = np.asarray(picture)[crop], np.asarray(labels)[crop]
    if rng.random() < 0.5:
        image, segments = image[:, ::-1], segments[:, ::-1]
    return Scene(_recolour(rng, image), *visible(segments, photograph.names))


def _recolour(rng: np.random.Generator, image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Slightly different light, contrast and noise; uint8."""
    tint = rng.normal(1, 0.05, 3) * rng.uniform(0.85, 1.15)
    middle = image.mean()
    pixels = (image - middle) * rng.uniform(0.85, 1.15) + middle
    noise = rng.standard_normal(image.shape, dtype=np.float32) * rng.uniform(0, 4)
    recoloured: npt.NDArray[np.uint8] = np.clip(pixels * tint + noise, 0, 255).astype(np.uint8)
    return recoloured
