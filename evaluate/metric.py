"""What the three metrics have in common: records of single images, and their sum."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

from m2f.config import Category
from m2f.evaluate.truth import Truth
from m2f.runtime.results import Prediction

Value: TypeAlias = float | int | None
Record: TypeAlias = dict[str, Any]
"""What a metric has to know of one image, as JSON; its "score" ranks images, 0..100."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassScore:
    """The figures of one category; percent, but for counts."""

    category: Category
    values: Mapping[str, Value]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """What a metric found.

    Attributes:
        metrics: Percent, but for counts; None where nothing was to be averaged.
    """

    metrics: Mapping[str, Value]
    classes: tuple[ClassScore, ...]


class Metric(Protocol):
    """Compares images one by one; everything that is kept of them is in the records."""

    def measure(self, truth: Truth, prediction: Prediction) -> Record:
        """Compares one image."""

    def summarise(self, records: Iterable[Record]) -> Scores:
        """Puts records together; their order decides ties of scores, as in COCO's tools."""


def percent(value: float) -> float:
    """From 0..1 to 0..100."""
    return 100.0 * float(value)


def mean(values: Iterable[Value]) -> float | None:
    """Of those that are not None; None if all are."""
    known = [v for v in values if v is not None]
    return sum(known) / len(known) if known else None
