"""An engine on a GPU: how long a batch takes, and what graphs and batches in flight save."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from m2f.bench.timing import Times, in_turns
from m2f.bundle import Bundle
from m2f.config import json_from_config
from m2f.engine import EngineRecord, Extent, read_record
from m2f.export.exporter import check_image
from m2f.runtime.backend_trt import TrtBackend
from m2f.runtime.device import Device, open_device
from m2f.runtime.preprocess import Prepared
from m2f.runtime.trt_engine import find_engine

DEPTHS = (2, 3)
"""Batches in flight that are tried."""

DECODED = (1080, 1920)
"""Height and width of a camera's image, of which a whole batch is timed, too."""

STREAM = 16
"""Batches one after the other, where they overlap."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """One way to run an engine.

    Attributes:
        name: What is special about it.
        times: Milliseconds for one batch, its copies both ways included.
    """

    name: str
    times: Times


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuReport:
    """What was measured, and on what.

    Attributes:
        gpu: Its name.
        backend: TensorRT's version and the engine's precision.
        record: What the engine was built from.
        extent: N, H, W of the input.
        load_seconds: Opening the engine and acquiring memory.
        warm_up_seconds: The first batches, with which graphs are made.
        device_bytes: Memory taken on the GPU.
        ways: Each way to run it.
    """

    gpu: str
    backend: str
    record: EngineRecord
    extent: Extent
    load_seconds: float
    warm_up_seconds: float
    device_bytes: int
    ways: tuple[Way, ...]

    def to_json(self) -> dict[str, Any]:
        """Ready for ``json.dump``."""
        raw: dict[str, Any] = json_from_config(self)
        raw["ways"] = [{"name": way.name, **way.times.to_json()} for way in self.ways]
        return raw


def bench_gpu(
    bundle: str | Path,
    *,
    size: tuple[int, int] | None = None,
    index: int = 0,
    target: str | None = None,
    runs: int = 10,
    device: Device | None = None,
    trt: Any | None = None,
) -> GpuReport:
    """Times a bundle's engine; `m2f check` tells whether its results are right.

    Args:
        bundle: With an engine that fits this machine.
        size: Height and width; what the engine is tuned for unless given.
        index: Number of the GPU.
        target: Which of the engines, "tensorrt" or "tensorrt-rtx".
        runs: How often each way is timed.
        device: The GPU, opened; ``index`` unless given.
        trt: TensorRT's module; the one the engine is for unless given.

    Raises:
        DeviceError: There is no GPU, or it fails.
        MissingFile: There is no engine.
        EngineError: None of the engines fits.
        ShapeError: The engine does not take this size.
    """
    opened = Bundle.open(bundle)
    device = open_device(index) if device is None else device
    engine = find_engine(opened, device, target=target)
    record = read_record(engine)
    n, h, w = record.key.sizes.opt
    extent = (n, *(size or (h, w)))
    free, start = device.free_bytes(), time.monotonic()
    backend = TrtBackend(engine, device, bundle=opened, trt=trt, depth=max(DEPTHS))
    plain = TrtBackend(engine, device, bundle=opened, trt=trt, depth=1, graphs=False)
    with backend, plain:
        loaded, taken = time.monotonic(), free - device.free_bytes()
        for one in (backend, plain):
            one.warm_up(extent)
        warmed = time.monotonic()
        times = dict(_timed(backend, plain, extent, runs))
    return GpuReport(
        gpu=device.name,
        backend=backend.name,
        record=record,
        extent=extent,
        load_seconds=loaded - start,
        warm_up_seconds=warmed - loaded,
        device_bytes=taken,
        ways=tuple(Way(name=name, times=found) for name, found in times.items()),
    )


def _timed(
    backend: TrtBackend, plain: TrtBackend, extent: Extent, runs: int
) -> Iterator[tuple[str, Times]]:
    n, h, w = extent
    profile = backend.profile
    image = np.resize(check_image(profile)[0], (n, h, w, 3))
    sizes = np.tile(np.array([h, w], np.int64), (n, 1))

    def streamed(depth: int) -> Callable[[], None]:
        def run() -> None:
            flying = [backend.submit(image, sizes) for _ in range(depth)]
            for i in range(STREAM):
                with flying.pop(0) as flight:
                    flight.logits()
                if i + depth < STREAM:
                    flying.append(backend.submit(image, sizes))

        return run

    ways: dict[str, Callable[[], object]] = {
        "one by one, no graph": lambda: plain.run(image, sizes),
        "one by one": lambda: backend.run(image, sizes),
        **{f"{depth} in flight": streamed(depth) for depth in DEPTHS},
    }
    photo = np.resize(image[0], (*DECODED, 3))
    decoded = [Prepared(photo, (h, w)) for _ in range(n)]

    def from_decoded() -> None:
        with backend.submit_images(decoded, (h, w)) as flight:
            flight.logits()

    where = "GPU" if backend.resizes else "host"
    ways[f"from {DECODED[0]}x{DECODED[1]}, resized by the {where}"] = from_decoded
    times, _ = in_turns(ways, count=runs)
    for name, found in times.items():
        batches = STREAM if name.endswith("in flight") else 1
        yield name, Times(tuple(ms / batches for ms in found.ms))
