"""How far apart two files of one model may be, by their precision."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from m2f.bundle import Precision

LIMIT = 1e-4
"""Largest relative L2 of an output, FP32 against FP32: DESIGN.md, proof without a GPU."""

PIXEL_LIMIT = 1e-4
"""Largest share of mask pixels whose sign may differ."""


@dataclass(frozen=True)
class Bounds:
    """How far two files of one model may be apart that differ in precision.

    Attributes:
        error: Relative L2 of an output, given the same decisions.
        pixels: Share of mask pixels whose sign differs. Logits within the error of zero flip;
            of a distribution about as wide as its mean square fewer than `error` lie there.
        reach: Distance from the threshold of a decision that differs, in units of its
            layer's root mean square: of a million logits the worst is within six deviations.
    """

    error: float
    pixels: float
    reach: float

    @classmethod
    def of_roundoff(cls, unit: float, roundings: int = 1000) -> Bounds:
        """What as many independent roundings in sequence amount to."""
        error = unit * roundings**0.5
        return cls(error=error, pixels=error, reach=6 * error)


BOUNDS: Mapping[Precision, Bounds] = {
    "fp32": Bounds(error=LIMIT, pixels=PIXEL_LIMIT, reach=LIMIT),
    "fp16": Bounds.of_roundoff(2.0**-11),
    "bf16": Bounds.of_roundoff(2.0**-8),
    # A hundred 8-bit tensors in sequence. int8: rounding to whole steps leaves 1/sqrt(12) of
    # one, and the largest magnitude, 127 steps, is ten root mean squares. E4M3: as the others.
    "int8": Bounds.of_roundoff(10 / 127 / 12**0.5, 100),
    "fp8": Bounds.of_roundoff(2.0**-4, 100),
}
"""By the coarser precision of two files. For 8 bits they only tell a quantised network from a
broken one: whether it is good enough, data with ground truth must say (`m2f eval`)."""
