"""From a file to its segments: how long each stage takes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from m2f.bench.timing import Times, timed
from m2f.runtime.images import Pixels, decode
from m2f.runtime.preprocess import Prepared
from m2f.runtime.session import Session

STAGES = ("decode", "pre", "network", "post")
"""decode: file to pixels; pre: pixels to the network's input; network: to logits; post: to
segments at the image's size."""


def stages(
    sessions: Sequence[Session], images: Sequence[Path | Pixels], *, runs: int, warm_up: int = 1
) -> list[dict[str, Times]]:
    """Times every stage of every session on every image, in turns.

    Args:
        sessions: What to time.
        images: Files, or pixels where there is nothing to decode.
        runs: Turns that count.
        warm_up: Turns before them.

    Returns:
        For each session its `STAGES` and "all", of all images together.
    """
    taken: list[dict[str, list[float]]] = [{name: [] for name in STAGES} for _ in sessions]
    for turn in range(warm_up + runs):
        for image in images:
            for session, times in zip(sessions, taken, strict=True):
                once = _once(session, image)
                if turn >= warm_up:
                    for name, ms in zip(STAGES, once, strict=True):
                        times[name].append(ms)
    return [_with_sum(times) for times in taken]


def _once(session: Session, image: Path | Pixels) -> tuple[float, float, float, float]:
    """Milliseconds of each stage."""
    decoding, pixels = timed(lambda: decode(image))
    preparing, (prepared, batch, size) = timed(lambda: _input(session, pixels))
    running, (classes, masks) = timed(lambda: session.backend.run(batch, size))
    answering, _ = timed(lambda: session.segments(classes[0], masks[0], prepared))
    return decoding, preparing, running, answering


def _input(session: Session, pixels: Pixels) -> tuple[Prepared, Pixels, NDArray[np.int64]]:
    """One image at the network's resolution, as a batch, and the size of its valid part."""
    prepared = session.prepare(pixels)
    return prepared, *session.assembled([prepared])


def _with_sum(times: dict[str, list[float]]) -> dict[str, Times]:
    together = [sum(parts) for parts in zip(*times.values(), strict=True)]
    return {name: Times(tuple(ms)) for name, ms in {**times, "all": together}.items()}
