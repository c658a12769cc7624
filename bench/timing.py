"""Times of several things that take turns, so that a drifting machine treats all alike."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

Key = TypeVar("Key")
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Times:
    """Of one thing, milliseconds, in the order they were taken."""

    ms: tuple[float, ...]

    @property
    def median(self) -> float:
        """The middle one."""
        return float(np.median(self.ms))

    @property
    def quartiles(self) -> tuple[float, float]:
        """A quarter is faster than the first, a quarter slower than the second."""
        low, high = np.percentile(self.ms, (25, 75))
        return float(low), float(high)

    def to_json(self) -> dict[str, Any]:
        """Ready for ``json.dump``."""
        return {"median_ms": self.median, "quartiles_ms": self.quartiles, "ms": self.ms}


PAUSE_S = 0.05
"""Before each run: by then the threads of the one before have stopped waiting for more."""


def in_turns(
    runs: Mapping[Key, Callable[[], Result]],
    *,
    count: int,
    warm_up: int = 1,
    progress: Callable[[int, int], None] = lambda turn, turns: None,
) -> tuple[dict[Key, Times], dict[Key, Result]]:
    """Runs each once per turn.

    Args:
        runs: What to time.
        count: Turns that are timed.
        warm_up: Turns before them.
        progress: Called before each turn with its number (from 1) and their count.

    Returns:
        Times, and what each gave in the last turn.
    """
    taken: dict[Key, list[float]] = {key: [] for key in runs}
    last: dict[Key, Result] = {}
    for turn in range(warm_up + count):
        progress(turn + 1, warm_up + count)
        for key, run in runs.items():
            time.sleep(PAUSE_S)
            elapsed, last[key] = timed(run)
            if turn >= warm_up:
                taken[key].append(elapsed)
    return {key: Times(tuple(values)) for key, values in taken.items()}, last


def timed(run: Callable[[], Result]) -> tuple[float, Result]:
    """Milliseconds of one call, without the garbage collector, and what it gave."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        start = time.perf_counter()
        result = run()
        return (time.perf_counter() - start) * 1e3, result
    finally:
        if was_enabled:
            gc.enable()
