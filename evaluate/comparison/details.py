"""Layer by layer: how much of each output is signal, and which mask decisions change."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from m2f.evaluate.comparison.candidates import Candidate
from m2f.evaluate.comparison.result import Layer
from m2f.export.parity import OnnxSide, Trace
from m2f.plugins import library
from m2f.runtime.images import decode
from m2f.runtime.preprocess import assemble

Array = NDArray[Any]

AT_ONCE = 48
"""Layers traced in one run; their outputs are all held in memory."""


@dataclass(frozen=True, slots=True)
class Details:
    """Of one row; empty for a row whose file cannot be looked into."""

    flips: tuple[float, ...] = ()
    layers: tuple[Layer, ...] = ()


def details(
    rows: Sequence[Candidate], images: Sequence[Path], *, threads: int | None
) -> dict[str, Details]:
    """Looks into every row's network on a few images.

    Flips are those of each network on its own. Signal is measured with the reference's
    decisions given, or else everything after the first decision that differs would count as
    noise.
    """
    sides = [_side(row, threads) for row in rows]
    found = {row.name: Details() for row in rows}
    if not images:
        return found
    totals = [_Totals() for _ in rows]
    for path in images:
        feeds = assemble(
            [rows[0].session.prepare(decode(path))], rows[0].bundle.manifest.profile
        )
        reference = sides[0].run(*feeds)
        for side, total in zip(sides[1:], totals[1:], strict=True):
            total.decide(reference, side.run(*feeds))
            for names in _groups(shared(sides[0], side)):
                first = sides[0].run(*feeds, forced=reference.decisions, layers=names)
                other = side.run(*feeds, forced=reference.decisions, layers=names)
                total.add(first, other)
    for row, total in zip(rows[1:], totals[1:], strict=True):
        found[row.name] = total.details()
    return found


def shared(a: OnnxSide, b: OnnxSide) -> list[str]:
    """Layers that both files name alike, in the order that the first runs them."""
    known = set(b.layer_names())
    return [name for name in a.layer_names() if name in known]


class _Totals:
    """Sums over images."""

    def __init__(self) -> None:
        self.flipped: Array = np.zeros(0, np.int64)
        self.decided: Array = np.zeros(0, np.int64)
        self.signal: dict[str, float] = {}
        self.noise: dict[str, float] = {}

    def decide(self, reference: Trace, other: Trace) -> None:
        pairs = zip(reference.decisions, other.decisions, strict=True)
        flipped = np.array([((a < 0) != (b < 0)).sum() for a, b in pairs], np.int64)
        decided = np.array([a.size for a in reference.decisions], np.int64)
        self.flipped = self.flipped + flipped if len(self.flipped) else flipped
        self.decided = self.decided + decided if len(self.decided) else decided

    def add(self, reference: Trace, other: Trace) -> None:
        for name, y in other.layers.items():
            x = reference.layers[name]
            if x.shape != y.shape or x.dtype.kind != "f":
                continue
            x64 = x.astype(np.float64)
            self.signal[name] = self.signal.get(name, 0.0) + float(np.square(x64).sum())
            error = float(np.square(y.astype(np.float64) - x64).sum())
            self.noise[name] = self.noise.get(name, 0.0) + error

    def details(self) -> Details:
        flips = (100 * self.flipped / self.decided).tolist()
        layers = (
            Layer(name=name, decibel=10 * math.log10(signal / self.noise[name]))
            for name, signal in self.signal.items()
            if signal > 0 and self.noise[name] > 0
        )
        return Details(tuple(flips), tuple(layers))


def _side(row: Candidate, threads: int | None) -> OnnxSide:
    layers = row.bundle.manifest.model.transformer_decoder.layers
    return OnnxSide(row.bundle.model_path, layers, threads=threads, library=library.find())


def _groups(names: Sequence[str]) -> list[Sequence[str]]:
    return [names[i : i + AT_ONCE] for i in range(0, len(names), AT_ONCE)]
