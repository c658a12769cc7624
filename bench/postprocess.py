"""Times native image processing against the official algorithm and Pillow, in one run.

    python bench/postprocess.py --threads 2

After the network: the official code's algorithm in PyTorch (models/inference.py) and
`m2f.runtime.postprocess.segment` on the same logits, with the same threads, interleaved. Masks
are ellipses, as a network's, or noise, which no bound can decide. Before the network: Pillow
and the same resize into a batch. A time is printed only after the result was compared; beside
it are how many pixels differ, and by how much the process grew (each side in one of its own).
"""

from __future__ import annotations

import argparse
import functools
import json
import multiprocessing
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from m2f.config import TASKS, Category, Metadata, Postprocess, Preprocess
from m2f.models import inference
from m2f.plugins import library as files
from m2f.runtime import native
from m2f.runtime.logits import Frame
from m2f.runtime.postprocess import segment
from m2f.runtime.preprocess import Prepared, target_size

Array = NDArray[Any]
QUERIES, KEPT, CLASSES, THINGS = 100, 25, 133, 80
MOST_DIFFERING = 2e-4
"""Share of pixels: tests/tolerance.py's POSTPROCESS_PIXELS."""


def logits_of(kind: str, size: tuple[int, int]) -> tuple[Array, Array]:
    """Class logits [Q, K + 1], KEPT of them confident, and mask logits [Q, H/4, W/4]."""
    rng = np.random.default_rng(0)
    classes = rng.normal(0, 1, (QUERIES, CLASSES + 1)).astype(np.float32)
    classes[:, CLASSES] += 9
    kept = rng.permutation(QUERIES)[:KEPT]
    classes[kept, CLASSES] -= 12
    classes[kept, rng.integers(0, CLASSES, KEPT)] += 10
    h, w = size[0] // 4, size[1] // 4
    noise = rng.standard_normal((QUERIES, h, w), np.float32)
    if kind == "noise":
        return classes, 5 * noise
    y, x = np.mgrid[:h, :w].astype(np.float32)
    centre = rng.uniform(0, 1, (2, QUERIES, 1, 1)).astype(np.float32)
    radius = rng.uniform(0.05, 0.35, (2, QUERIES, 1, 1)).astype(np.float32)
    away = ((y / h - centre[0]) / radius[0]) ** 2 + ((x / w - centre[1]) / radius[1]) ** 2
    return classes, np.clip(8 * (1 - away), -15, 8) + noise / 2


class Case:
    """One task on one kind of masks, answered by either side."""

    def __init__(self, task: Any, kind: str, size: tuple[int, int], threads: int) -> None:
        self.name = f"{task}, {kind}"
        self.task, self.size, self.threads = task, size, threads
        self.class_logits, self.mask_logits = logits_of(kind, size)
        self.categories = tuple(
            Category(id=k + 1, name=str(k), colour=(0, 0, 0), is_thing=k < THINGS)
            for k in range(CLASSES)
        )
        self.metadata = Metadata(
            task="panoptic",
            tasks=TASKS,
            categories=self.categories,
            preprocess=Preprocess(),
            postprocess=Postprocess(),
        )

    def torch(self) -> Array:
        """The official algorithm: ids, classes, or masks."""
        logits, masks = map(torch.from_numpy, (self.class_logits, self.mask_logits))
        full = inference.full_size_masks(masks, self.size, self.size, self.size)
        if self.task == "panoptic":
            return inference.panoptic(logits, full, self.metadata)[0].numpy()
        if self.task == "semantic":
            return inference.semantic(logits, full).argmax(0).numpy()
        return inference.instance(logits, full, self.metadata).masks.numpy()

    def native(self) -> Any:
        """The same from the runtime."""
        return segment(
            self.class_logits,
            self.mask_logits,
            Frame(padded=self.size, valid=self.size, output=self.size),
            task=self.task,
            rules=self.metadata.postprocess,
            categories=self.categories,
            threads=self.threads,
        )

    def differing(self) -> int:
        """Pixels in which the two differ."""
        expected, found = self.torch(), self.native()
        actual = found.map_ if self.task != "instance" else found.packed.unpack()
        return int(np.count_nonzero(expected != actual))


def growth(case: Case, side: str) -> float:
    """MiB that a fresh process grows by, at its highest, for one answer."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        return pool.apply(_growth, (case, side))


def _growth(case: Case, side: str) -> float:
    torch.set_num_threads(case.threads)
    torch.ones(64, 64).softmax(-1).argmax(0)  # what PyTorch sets up once is not counted
    native.library(case.threads)
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts from here
    before = _peak()
    getattr(case, side)()
    return (_peak() - before) / 1024


def _peak() -> int:
    """KiB; getrusage would give the parent's, where that was larger."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))


def times_of(calls: Sequence[Callable[[], Any]], runs: int) -> list[list[float]]:
    """Milliseconds of each call, interleaved."""
    taken: list[list[float]] = [[] for _ in calls]
    for _ in range(runs):
        for call, times in zip(calls, taken, strict=True):
            start = time.perf_counter()
            call()
            times.append(1e3 * (time.perf_counter() - start))
    return taken


def row_of(name: str, taken: list[list[float]], runs: int) -> dict[str, Any]:
    """Medians and quartiles of two sides."""
    theirs, ours = (np.percentile(times, (50, 25, 75)).tolist() for times in taken)
    return {"case": name, "theirs_ms": theirs, "native_ms": ours, "ratio": theirs[0] / ours[0]}


def after(case: Case, runs: int, with_memory: bool) -> dict[str, Any]:
    """One row of post-processing."""
    differing = case.differing()
    pixels = case.size[0] * case.size[1] * (QUERIES if case.task == "instance" else 1)
    if differing > MOST_DIFFERING * pixels:
        sys.exit(f"{case.name}: {differing} of {pixels} pixels differ; nothing was timed")
    row = row_of(case.name, times_of((case.torch, case.native), runs), runs)
    row["differing_pixels"] = differing
    if with_memory:
        row["theirs_mib"], row["native_mib"] = growth(case, "torch"), growth(case, "native")
    return row


def before(size: tuple[int, int], threads: int, runs: int) -> dict[str, Any]:
    """One row of preprocessing: the image to the size detectron2 gives it, padded to 32."""
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    h, w = target_size(size, Preprocess())
    slot = np.empty((-(-h // 32) * 32, -(-w // 32) * 32, 3), np.uint8)
    prepared = Prepared(image, (h, w))
    prepared.write(slot, threads=threads)

    def pillow() -> Array:
        resized = Image.fromarray(image).resize((w, h), Image.Resampling.BILINEAR)
        batch = np.zeros_like(slot)
        batch[:h, :w] = np.asarray(resized)
        return batch

    differing = int(np.count_nonzero(pillow() != slot))
    name = f"resize {size[0]}x{size[1]} to {h}x{w}"
    if differing:
        sys.exit(f"{name}: {differing} bytes differ from Pillow's; nothing was timed")
    ours = functools.partial(prepared.write, slot, threads=threads)
    row = row_of(name, times_of((pillow, ours), runs), runs)
    return row | {"differing_pixels": differing}


def text_of(row: dict[str, Any]) -> str:
    """One line of the table."""
    sides = [
        f"{row[side][0]:8.1f} ({row[side][1]:.1f} to {row[side][2]:.1f})"
        for side in ("theirs_ms", "native_ms")
    ]
    memory = ""
    if "theirs_mib" in row:
        memory = f"  +{row['theirs_mib']:.0f} MiB against +{row['native_mib']:.0f} MiB"
    return (
        f"{row['case']:32s} {sides[0]:30s} {sides[1]:24s} {row['ratio']:6.1f}x  "
        f"{row['differing_pixels']} pixels differ{memory}"
    )


def main() -> None:
    """Parses the command line and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, nargs=2, default=[1024, 2048], metavar=("H", "W"))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--tasks", nargs="+", default=["panoptic", "semantic", "instance"])
    parser.add_argument("--masks", nargs="+", default=["ellipses", "noise"])
    parser.add_argument("--memory", action="store_true", help="measure how processes grow")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    if native.library(given.threads) is None:
        parser.exit(1, f"{files.HINT}\n")
    torch.set_num_threads(given.threads)
    size = (given.size[0] // 32 * 32, given.size[1] // 32 * 32)
    if not given.json:
        print(
            f"PyTorch {torch.__version__} or Pillow {Image.__version__} against "
            f"{files.instruction_set(files.find())}, {given.threads} threads (Pillow 1); "
            f"{size[0]}x{size[1]}, {QUERIES} queries, {KEPT} kept, {CLASSES} classes; "
            f"milliseconds, median (quartiles) of {given.runs}"
        )
    rows = []
    for task in given.tasks:
        for kind in given.masks:
            case = Case(task, kind, size, given.threads)
            rows.append(after(case, given.runs, given.memory))
            if not given.json:
                print(text_of(rows[-1]), flush=True)
    rows.append(before((1024, 2048), given.threads, 4 * given.runs))
    rows.append(before((480, 640), given.threads, 4 * given.runs))
    print(json.dumps(rows, indent=2) if given.json else "\n".join(map(text_of, rows[-2:])))


if __name__ == "__main__":
    main()
