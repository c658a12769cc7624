"""Times the native ops against their decomposed forms, in one run, with the error beside it.

    python bench/ops.py --size 512 --threads 2
    python bench/ops.py --size 512 --checkpoint models/sample --image models/sample/cat.jpg

All forms run in ONNX Runtime, interleaved, on the same inputs: value and sampling drawn at
random with offsets of a few pixels, masks from a checkpoint's own decoder (--checkpoint), or
made of ellipses. The decomposed forms are the portable one and, for MSDeformAttn, the usual one
through GridSample (as transformers exports it). Printed: median and quartiles in milliseconds,
how many times as long as the native op's, the largest difference from the portable form, and
what the machine cannot do without: for MSDeformAttn the time of its loads alone, measured in
the same run; for MaskedAttention the products.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# NumPy reads it while it loads; load_bandwidth() is that of one core.
os.environ["OPENBLAS_NUM_THREADS"] = "1"

import grid_sample
import numpy as np
import onnxruntime
from numpy.typing import NDArray

from m2f.bench.alone import bound, session_of, turn
from m2f.errors import CheckFailed
from m2f.export.graph import Graph
from m2f.export.ops import Lowering
from m2f.plugins import library

Array = NDArray[Any]
HEADS, POINTS, CHANNELS, QUERIES = 8, 4, 256, 100
PROBES, PROBE_BYTES = 50, 10_000_000
AGREEMENT = 1e-4
"""Largest difference between forms: blends of values of order one, at coordinates up to 64 that
each form rounds in its own way (some 64 * 2^-24 pixels, times a slope of a few)."""


@dataclass(frozen=True)
class Case:
    """One op on one input; ``work(native milliseconds, threads)`` says what it cannot avoid."""

    name: str
    inputs: dict[str, Array]
    sizes: tuple[tuple[int, int], ...]
    work: Callable[[float, int], str]

    @property
    def forms(self) -> tuple[str, ...]:
        """How it can be written down, the native op last."""
        usual = ("gridsample",) if self.sizes else ()
        return (*usual, "portable", "plugin")

    def session(self, form: Any, threads: int) -> onnxruntime.InferenceSession:
        """The op alone, in one of its forms."""
        g, lowering = Graph(), Lowering(form)
        names = list(self.inputs)
        counts = {"heads": HEADS, "points": POINTS, "channels": CHANNELS}
        if form == "gridsample":
            output = grid_sample.ms_deform_attn(g, *names, self.sizes, **counts)
        elif self.sizes:
            output = lowering.ms_deform_attn(g, *names, (), self.sizes, **counts)
        else:
            output = lowering.masked_attention(g, names, heads=HEADS, channels=CHANNELS)
        shapes = {name: array.shape for name, array in self.inputs.items()}
        return session_of(g, shapes, output, threads=threads, native=form == "plugin")


def deformable(size: int) -> Case:
    """MSDeformAttn as in the pixel decoder of an image of size x size."""
    rng = np.random.default_rng(0)
    sizes = tuple((size // s, size // s) for s in (32, 16, 8))
    positions = sum(h * w for h, w in sizes)
    samples = HEADS * len(sizes) * POINTS
    sampling = rng.standard_normal((1, positions, 3 * samples)).astype(np.float32)
    sampling[..., : 2 * samples] *= 2.5
    value = rng.standard_normal((1, positions, CHANNELS)).astype(np.float32)
    inputs = {"value": value, "sampling": sampling}
    row = 4 * CHANNELS // HEADS

    def work(native: float, threads: int) -> str:
        loads = positions * samples * 4 * row
        speed = threads * load_bandwidth(positions * row)
        least = 1e3 * loads / speed
        return (
            f"{loads / 1e6:.0f} MB of loads at {speed / 1e9:.0f} GB/s (a buffer as large as "
            f"one head's value) take {least:.2f}; the op takes {native / least:.1f}x that"
        )

    return Case(f"MSDeformAttn {size}", inputs, sizes, work)


def attention(mask_logits: Array, origin: str) -> Case:
    """MaskedAttention with these masks, [1, Q, S]."""
    rng = np.random.default_rng(0)
    _, queries, positions = mask_logits.shape
    rows = {"q": queries, "k": positions, "v": positions}
    inputs = {
        name: rng.standard_normal((1, n, CHANNELS)).astype(np.float32)
        for name, n in rows.items()
    }
    inputs["mask_logits"] = mask_logits.astype(np.float32)
    products = 2 * queries * positions * CHANNELS
    seen = mask_logits >= 0
    seen |= ~seen.any(-1, keepdims=True)
    work = f"{products / 1e6:.0f} M products unmasked, {seen.mean():.0%} of positions seen"
    return Case(f"MaskedAttention S={positions} {origin}", inputs, (), lambda *_: work)


def ellipses(side: int) -> Array:
    """Masks like those of objects: an ellipse per query, one query in ten sees nothing."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:side, :side]
    centre = rng.uniform(0, side, (2, QUERIES, 1, 1))
    radius = rng.uniform(0.05, 0.3, (2, QUERIES, 1, 1)) * side
    inside = 1 - ((y - centre[0]) / radius[0]) ** 2 - ((x - centre[1]) / radius[1]) ** 2
    inside[::10] = -1
    return inside.reshape(1, QUERIES, -1).astype(np.float32)


def masks_of(checkpoint: Path, image: Path, size: int) -> list[Array]:
    """The decisions of the last decoder layer of each scale, on a picture."""
    import torch
    from PIL import Image

    from m2f.export.parity import TorchSide
    from m2f.models.checkpoint import read
    from m2f.models.mask2former import model_from_weights

    found = read(checkpoint)
    model = model_from_weights(found.config, found.weights)
    side = TorchSide(model, found.metadata.preprocess)
    pixels = np.asarray(Image.open(image).convert("RGB").resize((size, size))).copy()[None]
    torch.set_num_threads(1)
    return side.run(pixels, np.array([[size, size]])).decisions[-3:]


def measure(case: Case, threads: int, runs: int, clock: Callable[[], float]) -> str:
    """The report of one op: what it has to do, and a line for each form."""
    sessions = [case.session(form, threads) for form in case.forms]
    results = [session.run(None, case.inputs)[0] for session in sessions]
    errors = [float(abs(result - results[-2]).max()) for result in results]
    if max(errors) > AGREEMENT:
        raise CheckFailed(f"{case.name}: forms differ by {max(errors)}, so none is timed")
    calls = [bound(session, case.inputs) for session in sessions]
    times: list[list[float]] = [[] for _ in calls]
    for _ in range(runs):
        for call, taken in zip(calls, times, strict=True):
            taken.append(turn(call, clock))
    native = float(np.median(times[-1]))
    lines = [f"{case.name}: {case.work(native, threads)}"]
    for form, taken, error in zip(case.forms, times, errors, strict=True):
        low, middle, high = np.percentile(taken, (25, 50, 75))
        lines.append(
            f"  {form:10} {middle:8.2f} ({low:.2f} to {high:.2f})  {middle / native:5.1f}x  "
            f"max error {error:.1e}"
        )
    return "\n".join(lines)


def load_bandwidth(bytes_read: int) -> float:
    """Bytes per second that one core loads from a buffer of this size, the best of many.

    By a dot product: two loads and one multiply-add per vector.
    """
    repeats = max(1, PROBE_BYTES // bytes_read)
    best = np.inf
    for _ in range(PROBES):
        half = np.ones(bytes_read // 8, np.float32)  # anew: where it lies matters
        other = half.copy()
        start = time.perf_counter()
        for _ in range(repeats):
            np.dot(half, other)
        best = min(best, (time.perf_counter() - start) / repeats)
    return float(2 * half.nbytes / best)


def main() -> None:
    """Parses the command line and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, nargs="+", default=[512])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--checkpoint", type=Path, help="whose masks to use")
    parser.add_argument("--image", type=Path, help="the picture those masks are of")
    parser.add_argument(
        "--cpu-time", action="store_true", help="on a busy machine; with --threads 1"
    )
    given = parser.parse_args()
    if given.cpu_time and given.threads != 1:
        parser.error("--cpu-time sees one thread; add --threads 1")
    clock = time.thread_time if given.cpu_time else time.perf_counter
    found = library.find()
    if found is None:
        parser.exit(1, f"{library.HINT}\n")
    print(
        f"ONNX Runtime {onnxruntime.__version__}, {given.threads} threads, "
        f"{library.instruction_set(found)}; milliseconds"
        f"{' of CPU time' if given.cpu_time else ''}, median (quartiles) of {given.runs}"
    )
    for size in given.size:
        cases = [deformable(size)]
        cases += [attention(ellipses(size // s), "ellipses") for s in (32, 16, 8)]
        if given.checkpoint and given.image:
            masks = masks_of(given.checkpoint, given.image, size)
            cases += [attention(mask, "checkpoint's") for mask in masks]
        for case in cases:
            print(measure(case, given.threads, given.runs, clock), flush=True)


if __name__ == "__main__":
    main()
