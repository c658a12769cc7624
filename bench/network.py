"""Times whole networks against PyTorch, in one run, after checking that they agree.

    python bench/network.py models/sample
    python bench/network.py coco-panoptic-r50 --size 512x512 --threads 2 --runs 7

A preset's name instead of a checkpoint stands for a model of that shape with random weights.
The implementations take turns, so that a machine whose speed drifts treats all alike; none is
timed whose answer is not PyTorch's. Printed: median and quartiles in milliseconds, how many
times as fast as PyTorch, and the relative error beside it. Nothing else should be running.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch

from m2f.bundle import MODEL, Range
from m2f.errors import CheckFailed
from m2f.export.algebra import ALL, Algebra
from m2f.export.exporter import Options, check_image
from m2f.export.network import onnx_from_weights
from m2f.export.onnx_file import save
from m2f.export.parity import OnnxSide, TorchSide, compare
from m2f.models.checkpoint import Checkpoint, read
from m2f.models.mask2former import Mask2Former, model_from_weights
from m2f.models.presets import PRESETS
from m2f.plugins import library

WARM_UP = 2


def checkpoint_of(name: str) -> Checkpoint:
    """A checkpoint, or a preset's shape with random weights."""
    if name not in PRESETS:
        return read(name)
    torch.manual_seed(0)
    preset = PRESETS[name]
    state = Mask2Former(preset.model).state_dict()
    return Checkpoint(
        path=name,
        format="official",
        sha256="",
        weights={key: value.numpy() for key, value in state.items()},
        config=preset.model,
        metadata=preset.metadata,
        preset=name,
        notes=(),
    )


def variants() -> dict[str, tuple[Options, Path | None]]:
    """What to compare: how it is exported, and the native library it runs with."""
    found = library.find()
    known: dict[str, tuple[Options, Path | None]] = {
        "portable, as the paper writes it": (
            Options(form="portable", algebra=Algebra.none()),
            None,
        ),
        "portable, exact rewrites": (Options(form="portable", algebra=ALL), None),
    }
    if found is not None:
        known["plugin, exact rewrites, native kernels"] = (Options(form="plugin"), found)
    return known


def timed(run: Callable[[], Any]) -> float:
    """Milliseconds of one call."""
    start = time.perf_counter()
    run()
    return (time.perf_counter() - start) * 1e3


def main() -> None:
    """Checks, times, prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="a checkpoint, or a preset's name")
    parser.add_argument("--size", default="512x512", help="HxW, pixels")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--json", type=Path, help="also write the results here")
    given = parser.parse_args()
    height, width = map(int, given.size.split("x"))
    torch.set_num_threads(given.threads)
    checkpoint = checkpoint_of(given.model)
    preprocess = checkpoint.metadata.preprocess
    reference = TorchSide(model_from_weights(checkpoint.config, checkpoint.weights), preprocess)
    fixed = Options(size=(height, width), batch=Range(min=1, max=1)).profile(preprocess)
    image, image_size = check_image(fixed)

    runs: dict[str, Callable[[], Any]] = {"PyTorch": lambda: reference.run(image, image_size)}
    errors = {"PyTorch": 0.0}
    with tempfile.TemporaryDirectory() as folder:
        for number, (name, (options, native)) in enumerate(variants().items()):
            place = Path(folder) / str(number)
            place.mkdir()
            model, arrays = onnx_from_weights(
                checkpoint.config,
                checkpoint.weights,
                preprocess=preprocess,
                profile=fixed,
                form=options.form,
                algebra=options.algebra,
            )
            save(model, arrays, place)
            layers = checkpoint.config.transformer_decoder.layers
            side = OnnxSide(place / MODEL, layers, threads=given.threads, library=native)
            found = compare(reference, side, image, image_size)
            if not found.is_within():
                raise CheckFailed(f"{name} differs from PyTorch, so it is not timed: {found}")
            errors[name] = found.mask_error
            session = session_of(place / MODEL, given.threads, native)
            feeds = {"image": image, "image_size": image_size}
            runs[name] = lambda session=session, feeds=feeds: session.run(None, feeds)
        times: dict[str, list[float]] = {name: [] for name in runs}
        for turn in range(WARM_UP + given.runs):
            for name, run in runs.items():
                elapsed = timed(run)
                if turn >= WARM_UP:
                    times[name].append(elapsed)
    report(given, times, errors)


def session_of(path: Path, threads: int, native: Path | None) -> Any:
    """A plain session: nothing but the two outputs."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = threads
    # Or the threads of the session before still turn while the next one is timed.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    if native is not None:
        options.register_custom_ops_library(str(native))
    return onnxruntime.InferenceSession(str(path), options, ["CPUExecutionProvider"])


def report(
    given: argparse.Namespace, times: dict[str, list[float]], errors: dict[str, float]
) -> None:
    """Prints the table."""
    base = np.median(times["PyTorch"])
    print(f"{given.model}, {given.size}, {given.threads} threads, {given.runs} runs in turns")
    print(f"{'':40} {'ms':>8} {'quartiles':>15} {'x':>6} {'error':>9}")
    rows = []
    for name, values in times.items():
        low, middle, high = np.percentile(values, (25, 50, 75))
        spread = f"{low:.0f}-{high:.0f}"
        print(f"{name:40} {middle:8.0f} {spread:>15} {base / middle:6.2f} {errors[name]:9.1e}")
        rows.append({"name": name, "ms": values, "error": errors[name]})
    if given.json is not None:
        given.json.write_text(json.dumps({"given": vars(given) | {"json": None}, "rows": rows}))


if __name__ == "__main__":
    main()
