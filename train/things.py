"""Objects of the drawn scenes: ball, box, star, ring, cup, tree, house, fish.

An object is a list of parts in the unit square, x to the right and y down, -1..1. A part is
one or more polygons and a colour; a part's later polygons are holes.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Points = npt.NDArray[np.float64]


class Part(NamedTuple):
    """One flat piece of an object.

    Attributes:
        outline: [n, 2], (x, y).
        colour: RGB, 0..255.
        holes: Outlines cut out of this part.
        grain: Strength of its surface noise, 0..1.
    """

    outline: Points
    colour: Points
    holes: tuple[Points, ...] = ()
    grain: float = 0.04


class Thing(NamedTuple):
    """An object to draw.

    Attributes:
        parts: Back to front.
        roundness: 0: lit like a flat board; 1: like a ball.
        tilt: Largest turn away from upright that looks right, radians.
    """

    parts: list[Part]
    roundness: float
    tilt: float


def ellipse(x: float, y: float, rx: float, ry: float, *, points: int = 40) -> Points:
    """Outline of an ellipse."""
    angle = np.linspace(0, 2 * np.pi, points, endpoint=False)
    return np.stack([x + rx * np.cos(angle), y + ry * np.sin(angle)], -1)


def polygon(*points: tuple[float, float]) -> Points:
    """Outline through the given corners."""
    return np.array(points, np.float64)


def _vivid(rng: np.random.Generator) -> Points:
    """A random saturated colour."""
    hue = rng.uniform(0, 6)
    channels = np.clip(np.abs((hue + np.array([0, 4, 2])) % 6 - 3) - 1, 0, 1)
    grey = rng.uniform(0.05, 0.45)
    return np.asarray(255 * rng.uniform(0.55, 1) * (grey + (1 - grey) * channels))


def _near(rng: np.random.Generator, *bases: tuple[int, int, int]) -> Points:
    """One of the colours, slightly changed."""
    base = bases[rng.integers(len(bases))]
    return np.clip(np.array(base) + rng.normal(0, 12, 3), 0, 255)


def ball(rng: np.random.Generator) -> Thing:
    """A ball, often with a band."""
    colour = _vivid(rng)
    parts = [Part(ellipse(0, 0, 0.95, 0.95), colour)]
    if rng.random() < 0.5:
        half = rng.uniform(0.15, 0.35)
        arc = np.linspace(-np.arcsin(half), np.arcsin(half), 9)
        right = np.stack([0.95 * np.cos(arc), 0.95 * np.sin(arc)], -1)
        parts.append(Part(np.concatenate([right, -right]), _vivid(rng)))
    return Thing(parts, roundness=1.0, tilt=np.pi)


def box(rng: np.random.Generator) -> Thing:
    """A box seen from a corner: front, side and top."""
    base = _near(rng, (190, 145, 95), (165, 120, 75), (120, 140, 165), (200, 80, 70))
    height, depth = rng.uniform(0.5, 0.8), rng.uniform(0.2, 0.45)
    right, back, top = 0.95 - depth, 0.9 - height * 1.6 - depth * 0.7, 0.9 - height * 1.6
    front = polygon((-0.95, top), (right, top), (right, 0.9), (-0.95, 0.9))
    side = polygon((right, top), (0.95, back), (0.95, 0.9 - depth * 0.7), (right, 0.9))
    lid = polygon((-0.95, top), (-0.95 + depth, back), (0.95, back), (right, top))
    parts = [Part(front, base), Part(side, base * 0.68), Part(lid, np.minimum(base * 1.2, 255))]
    if rng.random() < 0.6:
        middle = (right - 0.95) / 2
        low, high = middle - 0.1, middle + 0.1
        tape = polygon((low, top), (high, top), (high, 0.9), (low, 0.9))
        parts.append(Part(tape, base * rng.uniform(0.75, 0.9)))
    return Thing(parts, roundness=0.0, tilt=0.12)


def star(rng: np.random.Generator) -> Thing:
    """A five-pointed star."""
    angle = np.arange(10) * np.pi / 5 - np.pi / 2
    radius = np.where(np.arange(10) % 2, rng.uniform(0.38, 0.5), 1.0)
    outline = np.stack([radius * np.cos(angle), radius * np.sin(angle)], -1)
    colour = _near(rng, (245, 205, 60), (240, 160, 40), (235, 225, 190), (220, 70, 60))
    return Thing([Part(outline, colour)], roundness=0.4, tilt=np.pi)


def ring(rng: np.random.Generator) -> Thing:
    """A flat ring; what lies behind shows through its hole."""
    inner = rng.uniform(0.45, 0.7)
    flat = rng.uniform(0.6, 1.0)
    hole = ellipse(0, 0, 0.98 * inner, 0.98 * inner * flat)
    part = Part(ellipse(0, 0, 0.98, 0.98 * flat), _vivid(rng), (hole,))
    return Thing([part], roundness=0.6, tilt=np.pi)


def cup(rng: np.random.Generator) -> Thing:
    """A cup with a handle and something to drink in it."""
    colour = _near(rng, (235, 235, 230), (180, 60, 45), (70, 110, 170), (90, 140, 100))
    handle = Part(
        ellipse(0.62, 0.1, 0.36, 0.38), colour * 0.85, (ellipse(0.62, 0.1, 0.2, 0.22),)
    )
    foot = rng.uniform(0.35, 0.55)
    body = polygon((-0.85, -0.6), (0.6, -0.6), (foot, 0.9), (-foot - 0.25, 0.9))
    rim = Part(ellipse(-0.125, -0.6, 0.725, 0.28), np.minimum(colour * 1.15, 255))
    drink = _near(rng, (70, 40, 20), (150, 95, 50), (230, 225, 215))
    inside = Part(ellipse(-0.125, -0.57, 0.62, 0.21), drink)
    return Thing([handle, Part(body, colour), rim, inside], roundness=0.5, tilt=0.15)


def tree(rng: np.random.Generator) -> Thing:
    """A fir or a leafy tree, with its trunk."""
    trunk_colour = _near(rng, (95, 65, 40), (75, 55, 40))
    green = _near(rng, (40, 95, 45), (70, 120, 50), (30, 80, 60), (150, 110, 40))
    half = rng.uniform(0.07, 0.12)
    trunk = polygon((-half, 0.2), (half, 0.2), (half * 1.3, 0.98), (-half * 1.3, 0.98))
    parts = [Part(trunk, trunk_colour, grain=0.15)]
    if rng.random() < 0.5:
        for i in range(3):
            top, low, wide = -0.98 + 0.42 * i, -0.2 + 0.4 * i, 0.4 + 0.16 * i
            crown = polygon((0, top), (wide, low), (-wide, low))
            parts.append(Part(crown, green * (1 - 0.08 * i), grain=0.3))
    else:
        for _ in range(6):
            x, y = rng.uniform(-0.4, 0.4), rng.uniform(-0.6, 0.1)
            r = rng.uniform(0.35, 0.5)
            tint = green * rng.uniform(0.85, 1.15)
            parts.append(Part(ellipse(x, y, r, r * 0.85), np.minimum(tint, 255), grain=0.3))
    return Thing(parts, roundness=0.3, tilt=0.08)


def house(rng: np.random.Generator) -> Thing:
    """A house with a roof, a door and windows."""
    paint = _near(rng, (225, 215, 195), (200, 170, 130), (190, 195, 200), (215, 150, 110))
    roof = _near(rng, (140, 60, 45), (85, 75, 75), (110, 70, 50))
    eaves = rng.uniform(-0.3, -0.05)
    front = polygon((-0.8, eaves), (0.8, eaves), (0.8, 0.95), (-0.8, 0.95))
    ridge = rng.uniform(0.0, 0.5)
    top = polygon((-0.98, eaves), (-ridge, -0.95), (ridge, -0.95), (0.98, eaves))
    parts = [Part(front, paint, grain=0.06), Part(top, roof, grain=0.12)]
    dark = _near(rng, (60, 70, 85), (95, 60, 40))
    x = rng.uniform(-0.5, 0.3)
    parts.append(Part(polygon((x, 0.35), (x + 0.25, 0.35), (x + 0.25, 0.95), (x, 0.95)), dark))
    for left in (-0.65, 0.4):
        window = polygon(
            (left, eaves + 0.15), (left + 0.25, eaves + 0.15),
            (left + 0.25, eaves + 0.4), (left, eaves + 0.4),
        )  # fmt: skip
        parts.append(Part(window, _near(rng, (150, 190, 215), (250, 225, 140))))
    return Thing(parts, roundness=0.0, tilt=0.05)


def fish(rng: np.random.Generator) -> Thing:
    """A fish with tail, fin and eye; swims either way."""
    colour = _near(rng, (240, 130, 50), (120, 150, 180), (225, 200, 80), (200, 80, 90))
    way = rng.choice([-1.0, 1.0])
    mirror = np.array([way, 1.0])
    tall = rng.uniform(0.38, 0.55)
    tail = polygon((0.45, 0), (0.98, -0.42), (0.85, 0), (0.98, 0.42)) * mirror
    fin = polygon((-0.2, -tall * 0.8), (0.25, -tall - 0.25), (0.3, -tall * 0.5)) * mirror
    parts = [Part(tail, colour * 0.8), Part(fin, colour * 0.75)]
    parts.append(Part(ellipse(-0.2 * way, 0, 0.76, tall), colour, grain=0.08))
    if rng.random() < 0.5:
        band = ellipse(0.0, 0, 0.09, tall * 0.93) * mirror
        parts.append(Part(band, np.minimum(colour * 1.4 + 30, 255)))
    parts.append(Part(ellipse(-0.62 * way, -0.1, 0.09, 0.09), np.array([25.0, 25, 25])))
    return Thing(parts, roundness=0.5, tilt=0.5)


MAKERS: dict[str, Callable[[np.random.Generator], Thing]] = {
    "ball": ball,
    "box": box,
    "star": star,
    "ring": ring,
    "cup": cup,
    "tree": tree,
    "house": house,
    "fish": fish,
}
