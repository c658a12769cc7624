"""How the magnitudes of one tensor are distributed, over as many images as one likes."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

BINS = 1 << 14
"""Of the histogram; a tensor whose peak is 64 times its useful range still gets 2 bins for
each of the 127 steps of that range."""

EMPTY = -(1 << 20)
"""Exponent of a histogram that has seen nothing but zeros."""


@dataclass
class Histogram:
    """Counts of |x| in equal bins from 0 to a power of two.

    Because the range is always a power of two, growing it merges neighbouring bins exactly:
    the same values give the same counts in whatever order they come, and two histograms add
    up to that of all their values.

    Attributes:
        counts: int64 [BINS].
        exponent: The range ends at 2 ** exponent, which is above every value seen.
    """

    counts: NDArray[np.int64] = field(default_factory=lambda: np.zeros(BINS, np.int64))
    exponent: int = EMPTY

    @property
    def range(self) -> float:
        """Upper end of the last bin; 0 where only zeros were seen."""
        return 0.0 if self.exponent == EMPTY else math.ldexp(1.0, self.exponent)

    @property
    def edges(self) -> NDArray[np.float64]:
        """Edges of the bins, [BINS + 1]."""
        return np.arange(BINS + 1, dtype=np.float64) * np.float64(self.range / BINS)

    def add(self, values: NDArray[Any]) -> None:
        """Counts finite values of any shape."""
        size = np.abs(values.ravel())
        if not size.size:
            return
        peak = float(size.max())
        if peak:
            self._reach(math.frexp(peak)[1])
        if self.exponent == EMPTY:
            self.counts[0] += size.size
            return
        # Scaling by a power of two is exact, so that a value's bin is never a matter of
        # rounding.
        bins = (size * (BINS / self.range)).astype(np.int32)
        self.counts += np.bincount(bins, minlength=BINS)

    def _reach(self, exponent: int) -> None:
        """Makes the range end at 2 ** exponent at least."""
        if exponent <= self.exponent:
            return
        shift = min(exponent - self.exponent, BINS.bit_length() - 1)
        merged = self.counts.reshape(-1, 1 << shift).sum(1)
        self.counts = np.zeros(BINS, np.int64)
        self.counts[: merged.size] = merged
        self.exponent = exponent
