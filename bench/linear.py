"""Times the Linear op against ONNX Runtime's own nodes, on the shapes of Mask2Former.

    python bench/linear.py --threads 2
    python bench/linear.py --threads 2 --shapes 16384x96x384 100x256x256

Each shape is M x K x N of one layer in Swin-T at 512 x 512 pixels, or in the pixel and the
transformer decoder, with the activation and the residual that it has there. Three forms run in
ONNX Runtime, in turns, on the same numbers: a bare MatMul, which has no bias; the nodes that
the exporter writes, as ONNX Runtime fuses them; and the op. As in a network, where many layers
pass before one comes again, each turn takes another of several copies of the weight. Printed:
GFLOP/s of the products alone (the fastest turn, and the median), how many times as long the
nodes take as the op, and their largest difference.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnx import helper

from m2f.bench.alone import bound, session_of
from m2f.errors import CheckFailed
from m2f.export.graph import Graph
from m2f.plugins import library

Array = NDArray[Any]
FORMS = ("MatMul", "nodes", "Linear")
COPIES = 4
AGREEMENT = 1e-4
"""Largest difference of the op from the nodes: outputs of order one, which both have by sums of
up to 3072 products, in two orders."""

LAYERS = (
    ("qkv", 16384, 96, 288, ""),
    ("projection", 16384, 96, 96, "+"),
    ("expand", 16384, 96, 384, "gelu"),
    ("contract", 16384, 384, 96, "+"),
    ("qkv", 4096, 192, 576, ""),
    ("projection", 4096, 192, 192, "+"),
    ("expand", 4096, 192, 768, "gelu"),
    ("contract", 4096, 768, 192, "+"),
    ("qkv", 1024, 384, 1152, ""),
    ("projection", 1024, 384, 384, "+"),
    ("expand", 1024, 384, 1536, "gelu"),
    ("contract", 1024, 1536, 384, "+"),
    ("qkv", 256, 768, 2304, ""),
    ("projection", 256, 768, 768, "+"),
    ("expand", 256, 768, 3072, "gelu"),
    ("contract", 256, 3072, 768, "+"),
    ("value", 5376, 256, 256, ""),
    ("sampling", 5376, 256, 288, ""),
    ("projection", 5376, 256, 256, "+"),
    ("expand", 5376, 256, 1024, "relu"),
    ("contract", 5376, 1024, 256, "+"),
    ("keys, values", 4096, 256, 768, ""),
    ("keys, values", 1024, 256, 768, ""),
    ("keys, values", 256, 256, 768, ""),
    ("query", 100, 256, 256, "+"),
    ("expand", 100, 256, 2048, "relu"),
    ("contract", 100, 2048, 256, "+"),
)


@dataclass(frozen=True)
class Layer:
    """One fully connected layer; ``extra`` is its activation, or "+" for a residual."""

    name: str
    rows: int
    inner: int
    columns: int
    extra: str

    @property
    def shape(self) -> str:
        """M x K x N."""
        return f"{self.rows}x{self.inner}x{self.columns}"

    def weights(self, seed: int) -> dict[str, Array]:
        """Weight [K, N] and bias [N]."""
        rng = np.random.default_rng(seed)
        weight = rng.standard_normal((self.inner, self.columns)) / self.inner**0.5
        return {
            "weight": weight.astype(np.float32),
            "bias": rng.standard_normal(self.columns).astype(np.float32),
        }

    def inputs(self) -> dict[str, Array]:
        """The x [M, K], and the residual [M, N] where there is one."""
        rng = np.random.default_rng(0)
        inputs = {"x": rng.standard_normal((self.rows, self.inner)).astype(np.float32)}
        if self.extra == "+":
            residual = rng.standard_normal((self.rows, self.columns))
            inputs["residual"] = residual.astype(np.float32)
        return inputs

    def graph(self, form: str, weights: dict[str, Array]) -> Graph:
        """One form; the last node makes its output."""
        g = Graph()
        g.initializers.update(weights)
        if form == "Linear":
            names = ["x", "weight", "bias", *(["residual"] if self.extra == "+" else [])]
            activation = {"relu": 1, "gelu": 2}.get(self.extra, 0)
            g.nodes.append(
                helper.make_node(
                    "Linear", names, ["y"], domain="m2f.cpu", activation=activation
                )
            )
            return g
        y = g.op("MatMul", "x", "weight")
        if form == "MatMul":
            return g
        y = g.op("Add", y, "bias")
        if self.extra == "relu":
            g.op("Relu", y)
        elif self.extra == "+":
            g.op("Add", y, "residual")
        elif self.extra == "gelu":
            erf = g.op("Erf", g.op("Div", y, g.constant(2.0**0.5)))
            half = g.op("Mul", y, g.op("Add", erf, g.constant(1.0)))
            g.op("Mul", half, g.constant(0.5))
        return g

    def session(self, form: str, seed: int, threads: int) -> onnxruntime.InferenceSession:
        """The layer alone, in one of its forms."""
        g = self.graph(form, self.weights(seed))
        inputs = self.inputs()
        if form == "MatMul":
            inputs.pop("residual", None)
        output = g.nodes[-1].output[0]
        return session_of(g, {n: a.shape for n, a in inputs.items()}, output, threads=threads)


def measure(layer: Layer, threads: int, runs: int) -> str:
    """One line: GFLOP/s of each form, fastest and median."""
    inputs = layer.inputs()
    fed = {form: dict(inputs) for form in FORMS}
    fed["MatMul"].pop("residual", None)
    sessions = {
        form: [layer.session(form, seed, threads) for seed in range(COPIES)] for form in FORMS
    }
    results = [sessions[form][0].run(None, fed[form])[0] for form in ("nodes", "Linear")]
    error = float(abs(results[1] - results[0]).max())
    if not error <= AGREEMENT:
        raise CheckFailed(f"{layer.shape}: the op differs from the nodes by {error}")
    calls = {form: [bound(s, fed[form]) for s in made] for form, made in sessions.items()}
    times: dict[str, list[float]] = {form: [] for form in FORMS}
    for run in range(runs + 1):
        for form in FORMS:
            for call in calls[form]:
                start = time.perf_counter()
                call()
                if run:  # the first of all warms up
                    times[form].append(time.perf_counter() - start)
    work = 2e-9 * layer.rows * layer.inner * layer.columns
    speeds = [
        f"{work / min(taken):6.0f} {work / float(np.median(taken)):6.0f}"
        for taken in times.values()
    ]
    gain = min(times["nodes"]) / min(times["Linear"])
    return (
        f"{layer.name:13}{layer.shape:16}{layer.extra:6}{' '.join(speeds)} "
        f"{gain:6.2f}x  {error:.0e}"
    )


def main() -> None:
    """Parses the command line and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--shapes", nargs="+", help="only these, each as MxKxN")
    given = parser.parse_args()
    found = library.find()
    if found is None:
        parser.exit(1, f"{library.HINT}\n")
    print(
        f"ONNX Runtime {onnxruntime.__version__}, {given.threads} threads, "
        f"{library.instruction_set(found)}; GFLOP/s: fastest, median of {given.runs * COPIES}\n"
        f"{'':35}{'MatMul':>13} {'nodes':>13} {'Linear':>13}   gain  difference"
    )
    for layer in (Layer(*fields) for fields in LAYERS):
        if not given.shapes or layer.shape in given.shapes:
            print(measure(layer, given.threads, given.runs), flush=True)


if __name__ == "__main__":
    main()
