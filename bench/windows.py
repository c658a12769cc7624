"""Times WindowAttention in each stage of a Swin against the nodes it stands for, in one run.

    python bench/windows.py --model coco-panoptic-swin-t --size 512 --threads 2

All run in ONNX Runtime, in turns, on the same random pixels. The nodes are those that the
exporter writes: pad, roll, cut, attend, and back. Two linear layers stand among them, so what
these take alone, on the same windows, is taken off. Printed for a block of each stage, with and
without a shift: medians in milliseconds and their ratio, the rate of the op's multiply-adds,
and the largest difference between the op and the nodes; then the times of all blocks.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from m2f.bench.alone import bound, session_of, turn
from m2f.config import SwinConfig
from m2f.errors import CheckFailed
from m2f.export import backbones
from m2f.export.graph import Graph, Value
from m2f.export.layers import linear
from m2f.models.presets import preset
from m2f.plugins import FUSED, library

Array = NDArray[Any]
FORMS = ("nodes", "qkv", "proj", "op")
AGREEMENT = 1e-4
"""Largest difference: sums of up to 1536 products, all together of order one, in two orders."""


@dataclass(frozen=True)
class Block:
    """The attention of a Swin block on a map of side x side pixels."""

    side: int
    channels: int
    heads: int
    window: int
    shift: int

    @property
    def windows(self) -> int:
        """How many there are."""
        return (-(-self.side // self.window)) ** 2

    @property
    def multiply_adds(self) -> int:
        """Of scores and blends, those of pixels that are padding included."""
        return 2 * self.windows * self.window**4 * self.channels

    def graph(self, form: str) -> tuple[Graph, list[int], Value]:
        """Nodes from an input x, x's shape, and their output's name.

        Args:
            form: "nodes", the two linear layers among them; "fused", the same with the op;
                "op", the op alone; "qkv" and "proj", the linear layers alone.
        """
        c, side = self.channels, self.side
        rng = np.random.default_rng(0)
        shapes = {
            "qkv.weight": (3 * c, c),
            "qkv.bias": (3 * c,),
            "proj.weight": (c, c),
            "proj.bias": (c,),
            "relative_position_bias_table": ((2 * self.window - 1) ** 2, self.heads),
        }
        g = Graph({n: (rng.standard_normal(s) / c**0.5).astype("f") for n, s in shapes.items()})
        shape = [1, side, side, c]
        if form in ("qkv", "proj"):
            return g, [self.windows, self.window**2, c], linear(g, form, "x")
        if form == "op":
            return g, [1, side, side, 3 * c], self.op(g, "x")
        if form == "fused":
            return g, shape, linear(g, "proj", self.op(g, linear(g, "qkv", "x")))
        windows = backbones.Windows(g, self.window, (side, side), c, self.heads)
        y = windows.split(g, backbones._rolled(g, windows.pad(g, "x"), self.shift))
        mask = windows.mask if self.shift else None
        y = windows.join(g, backbones._window_attention(g, y, windows, mask))
        return g, shape, windows.crop(g, backbones._rolled(g, y, -self.shift))

    def op(self, g: Graph, qkv: Value) -> Value:
        """WindowAttention with the weights of the graph."""
        padding = g.stored("padding", g.array("qkv.bias").reshape(3, -1))
        bias = backbones._position_bias(g, self.window, self.heads)
        (spec,) = (s for s in FUSED if s.name == "WindowAttention")
        attributes = {"window": self.window, "shift": self.shift}
        return g.op(spec.name, qkv, padding, bias, domain=spec.domain, **attributes)

    def session(self, form: str, threads: int) -> onnxruntime.InferenceSession:
        """One form of it, ready to run."""
        g, shape, output = self.graph(form)
        return session_of(g, {"x": shape}, output, threads=threads)

    def measure(self, threads: int, runs: int) -> tuple[float, float, float]:
        """Milliseconds of the nodes and of the op, and their largest difference."""
        sessions = {form: self.session(form, threads) for form in FORMS}
        inputs = {form: pixels(session) for form, session in sessions.items()}
        fused = self.session("fused", threads).run(None, inputs["nodes"])[0]
        error = float(abs(fused - sessions["nodes"].run(None, inputs["nodes"])[0]).max())
        if error > AGREEMENT:
            raise CheckFailed(f"{self}: the op is off by {error}, so it is not timed")
        calls = {form: bound(session, inputs[form]) for form, session in sessions.items()}
        times: dict[str, list[float]] = {form: [] for form in FORMS}
        for _ in range(runs):
            for form, call in calls.items():
                times[form].append(turn(call, time.perf_counter))
        nodes, qkv, proj, op = (float(np.median(times[form])) for form in FORMS)
        return nodes - qkv - proj, op, error


def pixels(session: onnxruntime.InferenceSession) -> dict[str, Array]:
    """A random input."""
    shape = session.get_inputs()[0].shape
    return {"x": np.random.default_rng(1).standard_normal(shape).astype(np.float32)}


def main() -> None:
    """Parses the command line and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="coco-panoptic-swin-t")
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--runs", type=int, default=20)
    given = parser.parse_args()
    config, found = preset(given.model).model.backbone, library.find()
    if not isinstance(config, SwinConfig):
        parser.error(f"{given.model} has no windows; name a model with a Swin")
    if found is None:
        parser.exit(1, f"{library.HINT}\n")
    print(
        f"ONNX Runtime {onnxruntime.__version__}, {given.threads} threads, "
        f"{library.instruction_set(found)}; milliseconds, medians of {given.runs}"
    )
    total = np.zeros(2)
    stages = zip(config.channels, config.heads, config.depths, strict=True)
    for stage, (channels, heads, depth) in enumerate(stages):
        for shift in (0, config.window // 2):
            side = given.size // (4 << stage)
            block = Block(side, channels, heads, config.window, shift)
            nodes, op, error = block.measure(given.threads, given.runs)
            total += (nodes * depth / 2, op * depth / 2)
            print(
                f"{side:4} x {side:<4} {heads:3} heads, shift {shift}: nodes {nodes:7.2f}, "
                f"op {op:6.2f}, {nodes / op:5.1f}x, {block.multiply_adds / op / 1e6:6.1f} G/s, "
                f"max error {error:.1e}",
                flush=True,
            )
    nodes, op = total
    print(f"all {sum(config.depths)} blocks: nodes {nodes:.1f}, op {op:.1f}, {nodes / op:.1f}x")


if __name__ == "__main__":
    main()
