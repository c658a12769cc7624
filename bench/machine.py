"""What this machine can do at most: products and memory traffic, measured, not looked up."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import os
import platform
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from m2f.bench.timing import timed

SIDE = 2048
"""Of the square matrices: large enough to hide all but arithmetic."""

TRIES = 5
"""Of each peak; the best counts, for a peak is what can be reached."""

COPIED = 1 << 28
"""Bytes that are copied: more than caches hold."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Peak:
    """The fastest matrix product found.

    Attributes:
        precision: "fp32", "bf16" or "int8".
        gflops: 10^9 operations per second; a multiply-accumulate counts as two.
        library: Whose product it was.
    """

    precision: str
    gflops: float
    library: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """The machine that everything was measured on.

    Attributes:
        cpu: The processor's name.
        threads: Cores used.
        peaks: Of the precisions that some installed library can multiply here.
        bandwidth: GB/s, read and written together, of copying arrays larger than caches.
    """

    cpu: str
    threads: int
    peaks: tuple[Peak, ...]
    bandwidth: float

    def gflops(self, precision: str) -> float | None:
        """The peak of a precision; FP32's where there is none of its own."""
        known = {peak.precision: peak.gflops for peak in self.peaks}
        return known.get(precision, known.get("fp32"))

    def best_with(self, other: Machine) -> Machine:
        """The higher peaks of two measurements: the lower one was disturbed."""
        peaks = (*self.peaks, *other.peaks)
        best = {peak.precision: peak for peak in sorted(peaks, key=lambda peak: peak.gflops)}
        return dataclasses.replace(
            self,
            peaks=tuple(
                best[precision] for precision in dict.fromkeys(p.precision for p in peaks)
            ),
            bandwidth=max(self.bandwidth, other.bandwidth),
        )


def measure(threads: int) -> Machine:
    """Measures peaks with ``threads`` cores; takes seconds."""
    best: dict[str, Peak] = {}
    for library, precision, product in _products(threads):
        product()
        seconds = min(timed(product)[0] for _ in range(TRIES)) / 1e3
        peak = Peak(precision=precision, gflops=2 * SIDE**3 / seconds / 1e9, library=library)
        if precision not in best or peak.gflops > best[precision].gflops:
            best[precision] = peak
    return Machine(
        cpu=cpu_name(),
        threads=threads,
        peaks=tuple(best.values()),
        bandwidth=_bandwidth(threads),
    )


def cpu_name() -> str:
    """The processor's name."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        text = ""
    found = re.search(r"^model name\s*:\s*(.*)$", text, re.MULTILINE)
    return found[1] if found else platform.processor() or platform.machine()


def usable_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _products(threads: int) -> Iterator[tuple[str, str, Callable[[], Any]]]:
    """Matrix products of the installed libraries: name, precision, one product."""
    with contextlib.suppress(ImportError):  # where bundles only run there is no onnx
        yield from _products_of_onnxruntime(threads)
    try:
        import torch
    except ImportError:
        return
    torch.set_num_threads(threads)
    for precision, kind in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        a, b = (torch.ones(SIDE, SIDE, dtype=kind) for _ in range(2))
        yield "PyTorch", precision, lambda a=a, b=b: a @ b  # type: ignore[misc]


def _products_of_onnxruntime(threads: int) -> Iterator[tuple[str, str, Callable[[], Any]]]:
    import onnx
    import onnxruntime as ort  # type: ignore[import-untyped]
    from onnx import helper, numpy_helper

    types, shape = onnx.TensorProto, (SIDE, SIDE)
    kinds = (
        ("fp32", "MatMul", np.float32, np.float32, types.FLOAT),
        ("int8", "MatMulInteger", np.uint8, np.int8, types.INT32),
    )
    for precision, op, left, right, out in kinds:
        ports = [
            helper.make_tensor_value_info(
                "x", helper.np_dtype_to_tensor_dtype(np.dtype(left)), shape
            ),
            helper.make_tensor_value_info("y", out, shape),
        ]
        weight = numpy_helper.from_array(np.ones(shape, right), "w")
        node = helper.make_node(op, ["x", "w"], ["y"])
        graph = helper.make_graph([node], "product", ports[:1], ports[1:], [weight])
        opset = helper.make_opsetid("", 17)
        model = helper.make_model(graph, opset_imports=[opset], ir_version=8)
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        session = ort.InferenceSession(
            model.SerializeToString(), options, ["CPUExecutionProvider"]
        )
        feed = {"x": np.ones(shape, left)}
        yield "ONNX Runtime", precision, lambda s=session, f=feed: s.run(None, f)  # type: ignore[misc]


def _bandwidth(threads: int) -> float:
    """GB/s of copying; NumPy lets other threads run meanwhile."""
    source = np.ones(COPIED // 8)
    target = np.empty_like(source)
    cuts = np.linspace(0, source.size, threads + 1).astype(int)
    parts = [slice(a, b) for a, b in itertools.pairwise(cuts)]
    with ThreadPoolExecutor(threads) as pool:

        def copy() -> None:
            list(pool.map(lambda part: np.copyto(target[part], source[part]), parts))

        copy()
        seconds = min(timed(copy)[0] for _ in range(TRIES)) / 1e3
    return 2 * COPIED / seconds / 1e9
