"""Drawn panoptic scenes that look a little like photographs, one for every seed.

Regions of several surfaces, objects from a few pixels to half the picture, alone, in crowds,
touching and hiding each other; shadows, uneven light, blur and noise. What is true about a
scene is known exactly, so a model can be trained and judged where no data set is at hand.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFilter

from m2f.config import Category
from m2f.train.textures import PAINTERS, Array, Size, smooth_noise
from m2f.train.things import MAKERS, Thing

VOID = 0
"""Segment number of pixels that belong to nothing."""

SMALLEST = 12
"""Visible pixels from which a segment counts; what shows less is void."""

_OVERSAMPLE = 3
"""Objects are drawn this much larger, then averaged: smooth edges."""


class Scene(NamedTuple):
    """An image and what is in it.

    Attributes:
        image: [H, W, 3], uint8, RGB.
        segments: [H, W], uint8; pixel value i belongs to segment i - 1, `VOID` to none.
        names: The class of each segment; segments of the same stuff are one.
    """

    image: npt.NDArray[np.uint8]
    segments: npt.NDArray[np.uint8]
    names: list[str]

    @property
    def masks(self) -> npt.NDArray[np.bool_]:
        """One mask per segment, [n, H, W]; they do not overlap."""
        numbers = np.arange(1, len(self.names) + 1, dtype=np.uint8)
        return np.asarray(self.segments[None] == numbers[:, None, None])


_THINGS: dict[str, tuple[int, int, int]] = {
    "ball": (220, 60, 60),
    "box": (190, 140, 90),
    "star": (250, 200, 40),
    "ring": (170, 80, 200),
    "cup": (60, 130, 220),
    "tree": (30, 120, 60),
    "house": (230, 120, 150),
    "fish": (250, 140, 40),
}
_STUFF: dict[str, tuple[int, int, int]] = {
    "sky": (135, 190, 235),
    "grass": (120, 190, 90),
    "water": (40, 90, 160),
    "sand": (225, 205, 150),
    "brick wall": (160, 85, 65),
    "wood": (140, 100, 60),
    "wall": (190, 185, 180),
}
CATEGORIES: tuple[Category, ...] = tuple(
    Category(id=i, name=name, colour=colour, is_thing=name in _THINGS)
    for i, (name, colour) in enumerate({**_THINGS, **_STUFF}.items(), start=1)
)
"""What a scene can show. Ids from 1; 0 is void in the files."""


def scene(seed: int, size: Size = (160, 160)) -> Scene:
    """Draws a scene.

    Args:
        seed: Same seed and size, same scene (with the same NumPy and Pillow).
        size: Height and width, pixels, at least 32.
    """
    rng = np.random.default_rng([0x5CE2E, seed, *size])
    canvas = _Canvas(rng, size)
    canvas.paint_surfaces()
    canvas.place_things()
    return canvas.develop()


class _Canvas:
    """A scene in the making."""

    def __init__(self, rng: np.random.Generator, size: Size) -> None:
        self.rng, self.size = rng, size
        self.image: Array = np.zeros((*size, 3), np.float32)
        self.owner = np.zeros(size, np.uint8)
        self.names: list[str] = []
        self.horizon = 0.0  # share of the height above which only tall things stand
        self.light = rng.uniform(0, 2 * np.pi)

    def paint_surfaces(self) -> None:
        """Fills the canvas with one to four kinds of stuff."""
        rng, (h, w) = self.rng, self.size
        kind = rng.random()
        if kind < 0.5:  # outdoors: sky, then ground, perhaps a strip between
            self.horizon = rng.uniform(0.2, 0.65)
            ground = list(rng.permutation(["grass", "water", "sand"]))
            self._surface("sky", None)
            line = self._line(self.horizon, rough=rng.uniform(0.5, 8))
            self._surface(ground[0], line)
            if rng.random() < 0.5:
                share = rng.uniform(self.horizon + 0.1, 0.9)
                self._surface(ground[1], self._line(share, rough=rng.uniform(1, 8)))
        elif kind < 0.75:  # indoors: a wall and a floor
            self.horizon = rng.uniform(0.3, 0.7)
            self._surface(str(rng.choice(["wall", "brick wall"])), None)
            self._surface(str(rng.choice(["wood", "wood", "sand"])), self._line(self.horizon))
        else:  # seen from above
            base, other = rng.permutation(["grass", "water", "sand", "wood", "wall"])[:2]
            self._surface(str(base), None)
            if rng.random() < 0.5:
                cell = max(h, w) / rng.uniform(1.2, 3)
                blob = smooth_noise(rng, self.size, (cell, cell)) > rng.uniform(0, 0.4)
                self._surface(str(other), blob)

    def _line(self, share: float, *, rough: float = 0.0) -> npt.NDArray[np.bool_]:
        """What lies below a tilted, more or less wavy line at a share of the height."""
        h, w = self.size
        x = np.linspace(-0.5, 0.5, w, dtype=np.float32)
        line = share * h + x * self.rng.normal(0, 0.06) * h
        line = line + rough * smooth_noise(self.rng, (2, w), (2, self.rng.uniform(10, 50)))[0]
        return np.asarray(np.arange(h)[:, None] >= line[None, :])

    def _surface(self, name: str, where: npt.NDArray[np.bool_] | None) -> None:
        texture = PAINTERS[name](self.rng, self.size)
        if name not in self.names:
            self.names.append(name)
        number = self.names.index(name) + 1
        if where is None:
            self.image[:], self.owner[:] = texture, number
        else:
            self.image[where], self.owner[where] = texture[where], number

    def place_things(self) -> None:
        """Draws objects, far (small, high up) ones first, some of them in crowds."""
        rng, side = self.rng, min(self.size)
        planned = []
        for _ in range(rng.integers(1, 7)):
            name = str(rng.choice(list(MAKERS)))
            radius = side * np.exp(rng.uniform(np.log(0.03), np.log(0.3)))
            x, y = rng.uniform(0.02, 0.98), rng.uniform(max(0.05, self.horizon - 0.1), 0.95)
            planned.append((name, radius, x * self.size[1], y * self.size[0]))
            if radius < 0.13 * side and rng.random() < 0.35:
                planned += self._crowd(planned[-1])
        for name, radius, x, y in sorted(planned, key=lambda plan: plan[3]):
            self._draw(name, MAKERS[name](rng), radius, x, y)

    def _crowd(
        self, first: tuple[str, float, float, float]
    ) -> list[tuple[str, float, float, float]]:
        """More of the same kind, next to the first, touching or nearly."""
        name, radius, x, y = first
        crowd = []
        for _ in range(self.rng.integers(1, 5)):
            r = radius * self.rng.uniform(0.8, 1.25)
            angle, gap = self.rng.uniform(0, 2 * np.pi), self.rng.uniform(0.8, 1.15)
            x, y = x + (radius + r) * gap * np.cos(angle), y + r * gap * np.sin(angle)
            crowd.append((name, r, x, y))
        return crowd

    def _draw(self, name: str, thing: Thing, radius: float, x: float, y: float) -> None:
        """Draws an object over what is there, with its shadow."""
        half = int(np.ceil(radius * 1.5)) + 1
        top, left = round(y) - half, round(x) - half
        box = (max(top, 0), max(left, 0), min(top + 2 * half, self.size[0]),
               min(left + 2 * half, self.size[1]))  # fmt: skip
        if box[0] >= box[2] or box[1] >= box[3] or len(self.names) > 200:
            return
        turn = self.rng.uniform(-thing.tilt, thing.tilt)
        colour, alpha = self._render(thing, radius, half, (x - left, y - top), turn)
        cut = (slice(box[0] - top, box[2] - top), slice(box[1] - left, box[3] - left))
        place = (slice(box[0], box[2]), slice(box[1], box[3]))
        fall = (max(1, half // 8), round(half / 6 * np.cos(self.light)))
        shade = np.roll(alpha, fall, (0, 1))
        self.image[place] *= 1 - 0.35 * shade[cut][..., None]
        self.image[place] += (colour[cut] - self.image[place]) * alpha[cut][..., None]
        self.names.append(name)
        self.owner[place][alpha[cut] >= 0.5] = len(self.names)

    def _render(
        self, thing: Thing, radius: float, half: int, centre: tuple[float, float], turn: float
    ) -> tuple[Array, Array]:
        """Colour [2 half, 2 half, 3] and coverage [2 half, 2 half] of an object."""
        side, rng = 2 * half, self.rng
        turned = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
        colour = np.zeros((side, side, 3), np.float32)
        alpha = np.zeros((side, side), np.float32)
        grain = rng.standard_normal((side, side), dtype=np.float32)
        for part in thing.parts:
            sheet = Image.new("L", (side * _OVERSAMPLE, side * _OVERSAMPLE))
            pen = ImageDraw.Draw(sheet)
            for i, outline in enumerate((part.outline, *part.holes)):
                points = (outline @ turned * radius + centre) * _OVERSAMPLE
                pen.polygon([tuple(p) for p in points.tolist()], fill=0 if i else 255)
            cover = np.asarray(sheet.reduce(_OVERSAMPLE), np.float32) / 255
            paint = part.colour.astype(np.float32) * (1 + part.grain * grain[..., None])
            colour += (paint - colour) * cover[..., None]
            alpha = np.maximum(alpha, cover)
        # The blend above starts from black; undo its share at half-covered edges.
        colour /= np.maximum(alpha, 0.25)[..., None]
        return colour * self._shading(thing, radius, side, centre), alpha

    def _shading(
        self, thing: Thing, radius: float, side: int, centre: tuple[float, float]
    ) -> Array:
        """How much light falls on each pixel of an object, [side, side, 1]."""
        y, x = np.mgrid[:side, :side].astype(np.float32)
        x, y = (x - centre[0]) / radius, (y - centre[1]) / radius
        toward = -(x * np.cos(self.light) + 0.5 * y * abs(np.sin(self.light)) + 0.5 * y)
        bulge = np.sqrt(np.clip(1 - x * x - y * y, 0, 1))
        round_light = 0.45 + 0.5 * bulge + 0.35 * toward
        flat_light = 0.95 + 0.12 * toward
        light = flat_light + (round_light - flat_light) * thing.roundness
        lit: Array = np.clip(light, 0.25, 1.35)[..., None].astype(np.float32)
        return lit

    def develop(self) -> Scene:
        """Adds what a camera adds and drops what is hardly visible."""
        rng = self.rng
        glow = 1 + 0.18 * smooth_noise(rng, self.size, (self.size[0] / 1.5, self.size[1] / 1.5))
        tint = rng.normal(1, 0.04, 3).astype(np.float32) * np.float32(rng.uniform(0.8, 1.1))
        image = np.clip(self.image * glow[..., None] * tint, 0, 255)
        picture = Image.fromarray(image.astype(np.uint8))
        if rng.random() < 0.6:
            picture = picture.filter(ImageFilter.GaussianBlur(rng.uniform(0.2, 0.9)))
        noise = rng.standard_normal(image.shape, dtype=np.float32) * rng.uniform(0, 7)
        final = np.clip(np.asarray(picture, np.float32) + noise, 0, 255).astype(np.uint8)
        return Scene(final, *visible(self.owner, self.names))


def visible(
    owner: npt.NDArray[np.uint8], names: list[str]
) -> tuple[npt.NDArray[np.uint8], list[str]]:
    """Renumbers segments without gaps; those below `SMALLEST` pixels become void."""
    area = np.bincount(owner.ravel(), minlength=len(names) + 1)
    kept = [i for i in range(1, len(names) + 1) if area[i] >= SMALLEST]
    number = np.zeros(len(names) + 1, np.uint8)
    number[kept] = np.arange(1, len(kept) + 1)
    return number[owner], [names[i - 1] for i in kept]
