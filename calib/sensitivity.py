"""What quantising each part of a network costs, measured one part at a time."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from m2f.bundle import Bundle
from m2f.calib.images import Fed
from m2f.calib.network import Network
from m2f.export.graph import Array
from m2f.export.parity import OnnxSide, Trace
from m2f.plugins import library

Progress = Callable[[int, int, object], None]

MOST_DB = 150.0
"""What two equal outputs are said to have: float32 ends at 6.02 * 24 = 144 dB."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A part of the network that is quantised as a whole or not at all.

    Attributes:
        name: Of the block, or of the layer where layers are ranked.
        layers: What it consists of.
        masks_db: Signal to noise of the mask logits when it alone is quantised, decibels.
        classes_db: The same of the class logits.
    """

    name: str
    layers: tuple[str, ...]
    masks_db: float
    classes_db: float

    @property
    def noise(self) -> float:
        """What it adds to both outputs, as a share of their power; ranks the parts.

        Noise of independent sources adds up, so parts that are the first by it are those to
        keep from being quantised.
        """
        return 10 ** (-self.masks_db / 10) + 10 ** (-self.classes_db / 10)

    def to_json(self) -> dict[str, Any]:
        """Ready for ``json.dump``."""
        return {
            "part": self.name,
            "layers": list(self.layers),
            "masks_db": round(self.masks_db, 2),
            "classes_db": round(self.classes_db, 2),
        }


def rank(
    network: Network,
    parts: dict[str, tuple[str, ...]],
    inputs: Sequence[Fed],
    *,
    threads: int | None = None,
    progress: Progress | None = None,
) -> tuple[Part, ...]:
    """Measures every part and puts the noisiest first.

    All decide as the float32 network does where to look, so that the measure is of their
    numbers' noise and not of what a tipped decision happens to do on a few images.

    Args:
        network: With its ranges.
        parts: Layers by the name of the part.
        inputs: Images to measure on.
        threads: Cores to use; all unless given.
        progress: Called before each part with its number, their count, and its name.
    """
    reference = _side(network.bundle, threads)
    # Kept: what comes out and the decisions, about 50 MB per image of 800x1333.
    expected = [reference.run(*one) for one in inputs]
    found = []
    for number, (name, layers) in enumerate(parts.items(), 1):
        if progress is not None:
            progress(number, len(parts), f"quantising {name} alone")
        masks, classes = _signal(network, layers, inputs, expected, threads)
        found.append(Part(name=name, layers=layers, masks_db=masks, classes_db=classes))
    return tuple(sorted(found, key=lambda part: (-part.noise, part.name)))


def _signal(
    network: Network,
    layers: Collection[str],
    inputs: Sequence[Fed],
    expected: Sequence[Trace],
    threads: int | None,
) -> tuple[float, float]:
    """Signal to noise of mask and class logits, decibels."""
    noise, power = np.zeros(2), np.zeros(2)
    with network.quantised(layers) as bundle:
        side = _side(bundle, threads)
        for one, reference in zip(inputs, expected, strict=True):
            actual = side.run(*one, forced=reference.decisions)
            pairs = (
                (reference.mask_logits, actual.mask_logits),
                (reference.class_logits, actual.class_logits),
            )
            power += [_squares(x) for x, _ in pairs]
            noise += [_squares(x - y) for x, y in pairs]
    masks, classes = (decibels(p, n) for p, n in zip(power, noise, strict=True))
    return masks, classes


def decibels(power: float, noise: float) -> float:
    """Signal to noise: 20 is an error of 10 %, 40 of 1 %."""
    if not math.isfinite(noise):
        return -MOST_DB
    if noise <= 0 or power <= 0:
        return MOST_DB
    return min(MOST_DB, 10 * math.log10(power / noise))


def _squares(x: Array) -> float:
    return float(np.square(x, dtype=np.float64).sum())


def _side(bundle: Bundle, threads: int | None) -> OnnxSide:
    layers = bundle.manifest.model.transformer_decoder.layers
    return OnnxSide(bundle.model_path, layers, threads=threads, library=library.find())
