"""What a benchmark found out, as values that print well; README.md describes its JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from m2f.bench.checks import Check
from m2f.bench.machine import Machine
from m2f.bench.profiling import Profile, Row
from m2f.bench.timing import Times
from m2f.config import json_from_config

FORMAT_VERSION = 1
"""Of the JSON."""

Role = Literal["bundle", "reference", "peer"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Timed:
    """A network that was timed, having been checked.

    Attributes:
        role: "reference" is our model in PyTorch.
        precision: Of its products.
        check: Of its result, before the first timed run and after the last.
        parts: Where its time goes; None where that cannot be told.
    """

    name: str
    role: Role
    precision: str
    check: Check
    times: Times
    parts: Profile | None = None

    @property
    def slowdown(self) -> float:
        """How many times as long the parts took together, under the profiler."""
        return self.parts.total.ms / self.times.median if self.parts else 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Untimed:
    """A network that has no time, and why.

    Attributes:
        is_wrong: Its result was not the reference's; else it is missing or did not run.
    """

    name: str
    role: Role
    precision: str
    why: str
    is_wrong: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Staged:
    """A bundle, from files to segments.

    Attributes:
        stages: `m2f.bench.stages.STAGES`, and "all".
    """

    name: str
    task: str
    stages: Mapping[str, Times]


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """All of it.

    Attributes:
        model: Whose network it is.
        image: What the network was given.
        size: Of that, height and width, pixels.
        images: What the stages were given.
        runs: How often each was timed.
        tools: Versions of what took part.
    """

    model: str
    image: str
    size: tuple[int, int]
    images: tuple[str, ...]
    runs: int
    machine: Machine
    tools: Mapping[str, str]
    networks: tuple[Timed, ...]
    untimed: tuple[Untimed, ...]
    stages: tuple[Staged, ...]

    @property
    def wrong(self) -> tuple[Untimed, ...]:
        """Those whose result was not the reference's."""
        return tuple(one for one in self.untimed if one.is_wrong)

    @property
    def ours(self) -> Timed | None:
        """The bundle that others are compared with: the first."""
        return next((one for one in self.networks if one.role == "bundle"), None)

    def to_json(self) -> dict[str, Any]:
        """Ready for ``json.dump``."""
        return {
            "format_version": FORMAT_VERSION,
            "model": self.model,
            "image": self.image,
            "size": list(self.size),
            "images": list(self.images),
            "runs": self.runs,
            "machine": json_from_config(self.machine),
            "tools": dict(self.tools),
            "networks": [_timed(one) for one in self.networks],
            "untimed": json_from_config(self.untimed),
            "stages": [
                {
                    "name": one.name,
                    "task": one.task,
                    "stages": {name: times.to_json() for name, times in one.stages.items()},
                }
                for one in self.stages
            ],
        }


def _timed(one: Timed) -> dict[str, Any]:
    found = {
        "name": one.name,
        "role": one.role,
        "precision": one.precision,
        "check": json_from_config(one.check),
        **one.times.to_json(),
    }
    if one.parts is not None:
        found["parts"] = {row.name: _row(row) for row in one.parts.parts}
        found["ops"] = json_from_config(one.parts.ops)
        found["kinds"] = {row.name: _row(row) for row in one.parts.kinds}
        found["all"] = _row(one.parts.total)
    return found


def _row(row: Row) -> dict[str, Any]:
    return {
        "ms": row.ms,
        **row.cost.to_json(),
        "peak": row.peak,
        "bandwidth": row.bandwidth,
    }
