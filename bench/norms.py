"""Times LayerNorm and GroupNorm against the nodes they stand for and against a copy.

    python bench/norms.py --size 512 --threads 2

All run in ONNX Runtime, in turns, on the same random numbers. The nodes are those that the
exporter writes, and the fused ones what it makes of them for model.cpu.onnx. A copy is what
memory allows: NumPy's, on one thread. Printed: medians in milliseconds, how many times as long
as the op the nodes take, what the op moves a second, and the largest difference of the two.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from m2f.bench.alone import bound, opened, print_table, turn
from m2f.errors import CheckFailed
from m2f.export.fused import fuse
from m2f.export.graph import IR_VERSION, OPSET, Graph, Value
from m2f.export.layers import group_norm, layer_norm, resize

Array = NDArray[Any]
AGREEMENT = 1e-4
"""Largest difference: ONNX Runtime adds up to 2^19 squares in float32, of order one."""


@dataclass(frozen=True)
class Case:
    """A norm of some inputs; ``build`` writes its nodes."""

    name: str
    shapes: dict[str, tuple[int, ...]]
    channels: int
    build: Callable[[Graph], Value]

    def models(self) -> dict[str, onnx.ModelProto]:
        """The exporter's nodes, and the op."""
        rng = np.random.default_rng(0)
        names = ("norm.weight", "norm.bias")
        g = Graph({name: rng.standard_normal(self.channels).astype("f") for name in names})
        output = self.build(g)
        g.prune([output])
        ports = [helper.make_tensor_value_info(n, 1, s) for n, s in self.shapes.items()]
        outputs = [onnx.ValueInfoProto(name=output)]
        graph = helper.make_graph(g.nodes, "norm", ports, outputs)
        opsets = [helper.make_opsetid("", OPSET)]
        nodes = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION)
        fused = fuse(nodes, g.initializers)
        if fused is None:
            raise CheckFailed(f"{self.name}: nothing was fused")
        return {"nodes": with_weights(nodes, g.initializers), "op": with_weights(*fused)}

    def measure(self, threads: int, runs: int) -> str:
        """A row of the table."""
        rng = np.random.default_rng(1)
        inputs = {n: rng.standard_normal(s).astype("f") for n, s in self.shapes.items()}
        sessions = {
            form: opened(model, threads=threads) for form, model in self.models().items()
        }
        results = {form: session.run(None, inputs)[0] for form, session in sessions.items()}
        error = float(abs(results["op"] - results["nodes"]).max())
        if error > AGREEMENT:
            raise CheckFailed(f"{self.name}: the op is off by {error}, so it is not timed")
        calls = {form: bound(session, inputs) for form, session in sessions.items()}
        result = results["op"]
        calls["copy"] = lambda: np.copyto(result, inputs["x"])
        times: dict[str, list[float]] = {form: [] for form in calls}
        for _ in range(runs):
            for form, call in calls.items():
                times[form].append(turn(call, time.perf_counter))
        nodes, op, copy = (float(np.median(times[form])) for form in ("nodes", "op", "copy"))
        moved = sum(array.nbytes for array in inputs.values()) + result.nbytes
        return (
            f"{self.name:32} nodes {nodes:7.3f}, op {op:6.3f}, {nodes / op:5.1f}x, copy "
            f"{copy:6.3f}, {moved / op / 1e6:5.1f} GB/s, max error {error:.1e}"
        )


def with_weights(model: onnx.ModelProto, arrays: dict[str, Array]) -> onnx.ModelProto:
    """The model with its initializers inside."""
    model.graph.initializer.extend(numpy_helper.from_array(a, n) for n, a in arrays.items())
    return model


def cases(size: int) -> list[Case]:
    """Those of Mask2Former with a Swin-T, on square images."""
    rows = [
        *(((size >> (2 + i)) ** 2, 96 << i) for i in range(4)),
        *(((size >> (3 + i)) ** 2, 384 << i) for i in range(3)),
        (sum((size >> i) ** 2 for i in (3, 4, 5)), 256),
        (100, 256),
    ]
    found = [
        Case(f"LayerNorm {s} x {c}", {"x": (1, s, c)}, c, lambda g: layer_norm(g, "norm", "x"))
        for s, c in rows
    ]
    for i in (5, 4, 3, 2):
        side = size >> i
        found.append(grouped(f"GroupNorm {side} x {side}", side))
    found.append(grouped(f"  and ReLU {side} x {side}", side, relu=True))
    found.append(grouped(f"  and enlarged {side} x {side}", side, enlarged=True))
    return found


def grouped(name: str, side: int, *, relu: bool = False, enlarged: bool = False) -> Case:
    """A group norm of 256 channels."""

    def build(g: Graph) -> Value:
        y = group_norm(g, "norm", "x", 256, (side, side))
        if enlarged:
            return g.op("Add", y, resize(g, "coarse", 2.0))
        return g.op("Relu", y) if relu else y

    coarse = {"coarse": (1, 256, side // 2, side // 2)} if enlarged else {}
    return Case(name, {"x": (1, 256, side, side), **coarse}, 256, build)


if __name__ == "__main__":
    print_table(__doc__, cases, "medians")
