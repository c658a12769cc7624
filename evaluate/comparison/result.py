"""What a comparison found, for people and for programs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from m2f.config import Task, json_from_config
from m2f.evaluate.comparison.agreement import Agreement
from m2f.evaluate.metric import Value

STAGES = ("prepare", "network", "postprocess")
"""What is timed, in the order it happens; decoding is the same for all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """How much of a layer's output is signal, given the same inputs and mask decisions.

    Attributes:
        name: The module's.
        decibel: 10 log10 of the power of the reference's output over that of the difference.
    """

    name: str
    decibel: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One bundle on one backend.

    Attributes:
        name: Tells it from the other rows.
        bundle: The manifest's name of the model.
        precision: The bundle's.
        backend: What ran it.
        bytes: Of the ONNX file with its weights.
        metrics: Of the task, percent; None without ground truth.
        agreement: With the reference's answers; None for the reference itself.
        milliseconds: Median over the images, by stage.
        speed: How many times as fast as the reference, image by image; its median.
        peak_memory: Bytes, of a process that segments one image with this row alone.
        flips: Share of mask decisions that differ from the reference's, percent, by decoder
            layer, each network running on its own.
        layers: Signal of each layer that the two share, in the order they run.
    """

    name: str
    bundle: str
    precision: str
    backend: str
    bytes: int
    metrics: Mapping[str, Value] | None
    agreement: Agreement | None
    milliseconds: Mapping[str, float]
    speed: float
    peak_memory: int | None
    flips: tuple[float, ...] = ()
    layers: tuple[Layer, ...] = ()

    @property
    def total(self) -> float:
        """Milliseconds from decoded image to segments."""
        return sum(self.milliseconds.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """How much of one image a row sees differently from the reference.

    Attributes:
        image: The data set's name for it, or its path.
        row: Which row.
        pixels: Percent.
    """

    image: str
    row: str
    pixels: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Several bundles of one model on the same images; the first row is the reference.

    Attributes:
        task: What was asked of all.
        data: Name of the data set, or of the images.
        images: How many there were.
        detailed: How many of them were looked into layer by layer.
        rows: In the order asked for.
        changes: Every image and row but the reference's, most changed first.
        headline: Names of the metrics that people compare; none without ground truth.
        remarks: What a reader has to know beside the figures.
    """

    task: Task
    data: str
    images: int
    detailed: int
    rows: tuple[Row, ...]
    changes: tuple[Change, ...]
    headline: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()

    @property
    def reference(self) -> Row:
        """What the others are compared with."""
        return self.rows[0]

    def to_json(self) -> dict[str, Any]:
        """Everything, for ``json.dump``."""
        raw: dict[str, Any] = json_from_config(self)
        for entry, row in zip(raw["rows"], self.rows, strict=True):
            entry["total_milliseconds"] = row.total
        return raw
