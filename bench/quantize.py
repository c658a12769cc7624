"""Times the Quantize op against the nodes it stands for and against a copy.

    python bench/quantize.py --size 512 --threads 2

All run in ONNX Runtime, in turns, on the same random numbers: QuantizeLinear behind what ONNX
Runtime makes of a GELU's or a ReLU's nodes, and the op. A copy is what memory allows: NumPy's,
on one thread, and of four bytes where the op writes one. Printed: the fastest turns in
milliseconds, how many times as long as the op the nodes take, what the op moves a second, and
how many of the numbers differ, by how much.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import helper, numpy_helper

from m2f.bench.alone import bound, opened, print_table, turn
from m2f.errors import CheckFailed
from m2f.export.graph import IR_VERSION, OPSET, Array, Graph
from m2f.export.layers import gelu

MOST = 1e-4
"""Part of the numbers that may differ, each by one step: they are next to a tie, and the two
sides' error functions are not the same."""

ACTIVATIONS = {"": 0, "relu": 1, "gelu": 2}


@dataclass(frozen=True)
class Case:
    """A quantisation of rows by channels."""

    rows: int
    channels: int
    activation: str = ""

    def models(self) -> dict[str, onnx.ModelProto]:
        """The exporter's nodes, and the op."""
        g = Graph({})
        y = gelu(g, "x") if self.activation == "gelu" else "x"
        y = g.op("Relu", y) if self.activation == "relu" else y
        constants: dict[str, Array] = {
            "scale": np.array(0.03, np.float32),
            "zero": np.array(128, np.uint8),
        }
        g.nodes.append(helper.make_node("QuantizeLinear", [y, *constants], ["y"]))
        op = helper.make_node("Quantize", ["x", *constants], ["y"], domain="m2f.cpu")
        kind = ACTIVATIONS[self.activation]
        op.attribute.append(helper.make_attribute("activation", kind))
        arrays = {**g.initializers, **constants}
        return {"nodes": self.model(g.nodes, arrays), "op": self.model([op], constants)}

    def model(self, nodes: list[onnx.NodeProto], arrays: dict[str, Array]) -> onnx.ModelProto:
        """A file of these nodes alone."""
        x = helper.make_tensor_value_info("x", 1, (self.rows, self.channels))
        y = helper.make_tensor_value_info("y", onnx.TensorProto.UINT8, None)
        weights = [numpy_helper.from_array(array, name) for name, array in arrays.items()]
        graph = helper.make_graph(nodes, "quantize", [x], [y], weights)
        opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid("m2f.cpu", 1)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION)

    def measure(self, threads: int, runs: int) -> str:
        """A row of the table."""
        rng = np.random.default_rng(1)
        inputs = {"x": rng.standard_normal((self.rows, self.channels)).astype("f")}
        sessions = {
            form: opened(model, threads=threads) for form, model in self.models().items()
        }
        results = {form: session.run(None, inputs)[0] for form, session in sessions.items()}
        error = abs(results["op"].astype(int) - results["nodes"].astype(int))
        if error.max() > 1 or error.mean() > MOST:
            raise CheckFailed(f"{self}: the op is off by up to {error.max()}; not timed")
        calls = {form: bound(session, inputs) for form, session in sessions.items()}
        copied = np.empty_like(inputs["x"])
        calls["copy"] = lambda: np.copyto(copied, inputs["x"])
        times: dict[str, list[float]] = {form: [] for form in calls}
        for _ in range(runs):
            for form, call in calls.items():
                times[form].append(turn(call, time.perf_counter))
        nodes, op, copy = (min(times[form]) for form in ("nodes", "op", "copy"))
        moved = inputs["x"].nbytes + results["op"].nbytes
        return (
            f"{self.rows:6} x {self.channels:4} {self.activation:4} nodes {nodes:7.3f}, op "
            f"{op:6.3f}, {nodes / op:5.1f}x, copy {copy:6.3f}, {moved / op / 1e6:5.1f} GB/s, "
            f"{error.sum()} of {error.size} differ by 1"
        )


def cases(size: int) -> list[Case]:
    """Those of Mask2Former with a Swin-T, on square images."""
    found = [Case((size >> (2 + i)) ** 2, 384 << i, "gelu") for i in range(4)]
    found += [Case((size >> (2 + i)) ** 2, 96 << i) for i in range(4)]
    rows = sum((size >> i) ** 2 for i in (3, 4, 5))
    return [*found, Case(rows, 256), Case(rows, 1024, "relu")]


if __name__ == "__main__":
    print_table(__doc__, cases, "the fastest")
