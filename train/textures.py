"""Surfaces of the drawn scenes: sky, grass, water, sand, bricks, wood, plaster.

Every painter takes a random generator and a size and returns an image [H, W, 3], float32,
0..255. They only have to differ from each other as photographs of such surfaces do: in
colour, in grain, in direction.
"""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from PIL import Image

Array = npt.NDArray[np.float32]
Size = tuple[int, int]
"""Height and width, pixels."""


def smooth_noise(rng: np.random.Generator, size: Size, cell: tuple[float, float]) -> Array:
    """Random values on a coarse grid, blown up smoothly.

    Args:
        rng: Source of chance.
        size: Of the result.
        cell: Height and width of a grid cell, pixels.

    Returns:
        [H, W], mean about 0, mostly within -1..1.
    """
    h, w = size
    grid = (max(2, round(h / cell[0]) + 1), max(2, round(w / cell[1]) + 1))
    coarse = rng.standard_normal(grid, dtype=np.float32) * np.float32(0.5)
    return np.asarray(Image.fromarray(coarse).resize((w, h), Image.Resampling.BICUBIC))


def _colour(rng: np.random.Generator, base: tuple[int, int, int], spread: float) -> Array:
    """A colour near ``base``, float32 [3]: brightness varies more than hue."""
    jitter = rng.normal(0, spread, 3) * 0.5 + rng.normal(0, spread)
    return np.clip(np.array(base) + jitter, 0, 255).astype(np.float32)


def _blend(low: Array, high: Array, share: Array) -> Array:
    """Goes from one colour to another; ``share`` [H, W] is clipped to 0..1."""
    mixed: Array = low + (high - low) * np.clip(share, 0, 1)[..., None]
    return mixed


def sky(rng: np.random.Generator, size: Size) -> Array:
    """A vertical gradient with clouds; day, dusk or overcast."""
    tops = [(70, 120, 200), (40, 60, 120), (140, 160, 185), (90, 150, 225)]
    bottoms = [(190, 215, 240), (235, 160, 120), (205, 210, 215), (200, 225, 245)]
    kind = rng.integers(len(tops))
    top, bottom = _colour(rng, tops[kind], 12), _colour(rng, bottoms[kind], 12)
    rows = np.linspace(0, rng.uniform(0.8, 1.6), size[0], dtype=np.float32)
    image = _blend(top, bottom, np.broadcast_to(rows[:, None], size))
    scale = rng.uniform(12, 40)
    cloud = smooth_noise(rng, size, (scale * 0.5, scale * 1.5))
    cloud = cloud + 0.4 * smooth_noise(rng, size, (scale * 0.15, scale * 0.4))
    white = _colour(rng, (245, 245, 245), 6)
    share = np.clip(cloud - rng.uniform(0, 0.8), 0, 0.8)[..., None]
    clouded: Array = image + (white - image) * share
    return clouded


def grass(rng: np.random.Generator, size: Size) -> Array:
    """Green, with upright blades and lighter and darker patches."""
    dark = _colour(rng, (45, 85, 30), 12)
    light = _colour(rng, (125, 165, 65), 16)
    share = 0.5 + 0.35 * smooth_noise(rng, size, (3.5, 1.2))
    share = share + 0.3 * smooth_noise(rng, size, (18, 30))
    return _blend(dark, light, share)


def water(rng: np.random.Generator, size: Size) -> Array:
    """Blue to green, with flat waves and glints."""
    bases = [(25, 75, 120), (30, 100, 110), (45, 85, 140)]
    base = _colour(rng, bases[rng.integers(len(bases))], 10)
    light = _colour(rng, (130, 185, 205), 12)
    share = 0.25 + 0.25 * smooth_noise(rng, size, (2.2, rng.uniform(8, 18)))
    share = share + 0.2 * smooth_noise(rng, size, (7, 40))
    glint = smooth_noise(rng, size, (1.5, 6)) > 1.0
    return _blend(base, light, share + 0.45 * glint)


def sand(rng: np.random.Generator, size: Size) -> Array:
    """Beige, fine grains, soft ripples."""
    dark = _colour(rng, (175, 145, 100), 12)
    light = _colour(rng, (232, 208, 162), 10)
    share = 0.5 + 0.16 * rng.standard_normal(size, dtype=np.float32)
    share = share + 0.3 * smooth_noise(rng, size, (6, 30))
    return _blend(dark, light, share)


def brick_wall(rng: np.random.Generator, size: Size) -> Array:
    """Rows of bricks, every other one shifted by half, with mortar between."""
    h, w = size
    height = rng.uniform(5, 12)
    width = height * rng.uniform(1.8, 2.6)
    y, x = np.mgrid[:h, :w].astype(np.float32)
    row = np.floor((y + rng.uniform(0, height)) / height).astype(int)
    shifted = x + rng.uniform(0, width) + (row % 2) * width / 2
    column = np.floor(shifted / width).astype(int)
    tint = rng.normal(0, 0.2, (row.max() + 1, column.max() + 1)).astype(np.float32)
    share = 0.5 + tint[row, column] + 0.12 * rng.standard_normal(size, dtype=np.float32)
    reds = [(150, 70, 50), (165, 95, 70), (135, 85, 75)]
    base = _colour(rng, reds[rng.integers(len(reds))], 10)
    image = _blend(base * 0.7, np.minimum(base * 1.25, 255), share)
    joint = ((y + 1.5) % height < 1.2) | (shifted % width < 1.2)
    image[joint] = _colour(rng, (190, 180, 168), 12)
    return image


def wood(rng: np.random.Generator, size: Size) -> Array:
    """Planks across the picture, grain along them, dark seams."""
    height = rng.uniform(10, 26)
    plank = (np.arange(size[0]) / height + rng.uniform()).astype(int)
    tint = rng.normal(0, 0.18, plank.max() + 1).astype(np.float32)[plank]
    share = 0.5 + tint[:, None] + 0.3 * smooth_noise(rng, size, (1.6, rng.uniform(20, 50)))
    bases = [(120, 72, 38), (150, 100, 60), (175, 130, 85), (150, 75, 35)]
    base = _colour(rng, bases[rng.integers(len(bases))], 10)
    image = _blend(base * 0.65, np.minimum(base * 1.3, 255), share)
    image[1:][np.diff(plank) > 0] *= 0.5
    return image


def wall(rng: np.random.Generator, size: Size) -> Array:
    """Plaster: one colour, uneven light."""
    bases = [(205, 200, 190), (180, 190, 200), (210, 190, 165), (150, 140, 150)]
    base = _colour(rng, bases[rng.integers(len(bases))], 14)
    share = 0.5 + 0.5 * smooth_noise(rng, size, (60, 60))
    share = share + 0.08 * rng.standard_normal(size, dtype=np.float32)
    return _blend(base * 0.82, np.minimum(base * 1.12, 255), share)


PAINTERS: dict[str, Callable[[np.random.Generator, Size], Array]] = {
    "sky": sky,
    "grass": grass,
    "water": water,
    "sand": sand,
    "brick wall": brick_wall,
    "wood": wood,
    "wall": wall,
}
