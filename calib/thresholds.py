"""From a histogram to the magnitude that the largest integer stands for: four methods.

All are symmetric, as TensorRT demands: zero is the integer 0, and values beyond the threshold
are clipped to it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from m2f.calib.histogram import Histogram
from m2f.errors import UsageError

Method = Literal["minmax", "entropy", "percentile", "mse"]
METHODS: tuple[Method, ...] = get_args(Method)

LEVELS = 127
"""Steps from zero to the threshold: int8 without -128, which has no counterpart."""

CANDIDATES = 256
"""Thresholds that entropy and MSE try, evenly spaced up to the peak."""

MERGED = 4
"""Bins that count as one for the entropy, which means little where bins hold few values."""

_Floats = NDArray[np.float64]
_Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class RangeRule:
    """How thresholds are chosen.

    Attributes:
        method: "minmax": the largest magnitude seen. "percentile": the magnitude that a given
            share of the values stay below. "mse": the least mean squared error of rounding
            and clipping together. "entropy": the least Kullback-Leibler divergence between
            the values' distribution and its quantised version (Migacz, 8-bit inference with
            TensorRT, GTC 2017).
        percentile: For that method, in percent.
    """

    method: Method = "mse"
    percentile: float = 99.99

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise UsageError(f"unknown method {self.method!r}; there are {', '.join(METHODS)}")
        if not 50 <= self.percentile <= 100:
            raise UsageError(
                f"a percentile of {self.percentile} would clip most values; "
                "it is in percent, from 50 to 100"
            )

    def __str__(self) -> str:
        suffix = f" {self.percentile:g}" if self.method == "percentile" else ""
        return f"{self.method}{suffix}"

    def threshold(self, histogram: Histogram, peak: float) -> float:
        """The magnitude to which values are clipped; 0 where all of them were zero.

        Args:
            histogram: Of a sample of the values.
            peak: The largest magnitude of all values, which the sample may have missed.
        """
        if not peak:
            return 0.0
        if self.method == "minmax" or not histogram.range:
            return peak
        if self.method == "percentile":
            return min(peak, _percentile(histogram, self.percentile))
        if self.method == "entropy":
            counts, cost = histogram.counts.reshape(-1, MERGED).sum(1), _divergences
        else:
            counts, cost = histogram.counts, _errors
        last = max(1, min(len(counts), math.ceil(peak / histogram.range * len(counts))))
        ends = _candidates(last)
        best = ends[np.argmin(cost(counts, ends))]
        return min(peak, float(best) * histogram.range / len(counts))


def _percentile(histogram: Histogram, percent: float) -> float:
    """Upper edge of the first bin up to which so many values lie."""
    shares = np.cumsum(histogram.counts) / histogram.counts.sum()
    return float(histogram.edges[int(np.searchsorted(shares, percent / 100)) + 1])


def _candidates(last: int) -> _Ints:
    """Numbers of bins to keep, ascending; the last keeps the peak.

    Each step of the quantised range has at least two bins, as the histogram knows nothing
    finer.
    """
    least = min(2 * LEVELS, last)
    return np.unique(np.linspace(least, last, CANDIDATES).round().astype(np.int64))


def _errors(counts: _Ints, ends: _Ints) -> _Floats:
    """Sum of squared errors of rounding to 127 steps and clipping, for each candidate."""
    used = np.flatnonzero(counts)
    # Half the values of a rectified tensor are zeros; they lie in the first bin, and
    # rounding costs them nothing.
    values = np.where(used == 0, 0.0, used + 0.5)
    costs = np.empty(len(ends))
    for i, end in enumerate(ends):
        step = end / LEVELS
        rounded = np.minimum(np.rint(values / step), LEVELS) * step
        costs[i] = counts[used] @ np.square(values - rounded)
    return costs


def _divergences(counts: _Ints, ends: _Ints) -> _Floats:
    """Kullback-Leibler divergence of each candidate from the distribution it clips."""
    values = counts.astype(np.float64)
    # Zeros are exact at any scale. Counted, they would outweigh all else after a ReLU.
    values[0] = values[1]
    outliers = values.sum() - np.cumsum(values)
    return np.array([_divergence(values[:end], float(outliers[end - 1])) for end in ends])


def _divergence(counts: _Floats, clipped: float) -> float:
    """Of the quantised kept bins from the bins with what is clipped in the last one."""
    reference = counts.copy()
    reference[-1] += clipped
    # Which of the levels 0..127 each bin's values are rounded to.
    size = len(counts)
    level = np.minimum(((np.arange(size) + 0.5) * (LEVELS / size) + 0.5).astype(int), LEVELS)
    occupied = reference > 0
    mass = np.bincount(level, counts, LEVELS + 1)
    bins = np.bincount(level, occupied, LEVELS + 1)
    spread = np.divide(mass, bins, out=np.zeros_like(mass), where=bins > 0)
    quantised = np.where(occupied, spread[level], 0.0)
    return _kullback_leibler(reference, quantised)


def _kullback_leibler(p: _Floats, q: _Floats) -> float:
    """Of two histograms, each made a distribution; infinite where q lacks what p has."""
    p_total, q_total = p.sum(), q.sum()
    if not p_total or not q_total:
        return float("inf")
    used = p > 0
    if (q[used] == 0).any():
        return float("inf")
    ratio: NDArray[Any] = np.log((p[used] / p_total) / (q[used] / q_total))
    return float((p[used] / p_total) @ ratio)
