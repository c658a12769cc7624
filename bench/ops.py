"""Times the native ops against their portable form, in one run, with the error beside it.

    python bench/ops.py --size 512 --threads 2
    python bench/ops.py --size 512 --checkpoint models/sample --image models/sample/cat.jpg

Both forms run in ONNX Runtime, interleaved, on the same inputs: value and sampling drawn at
random with offsets of a few pixels, masks from a checkpoint's own decoder (--checkpoint), or
made of ellipses. Printed: median and quartiles in milliseconds, the ratio of the medians, the
largest difference, and where it is known what the machine cannot do without: bytes or products.
"""

from __future__ import annotations

import argparse
import functools
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from m2f.export.graph import IR_VERSION, OPSET, Graph
from m2f.export.ops import Lowering
from m2f.plugins import library

Array = NDArray[Any]
HEADS, POINTS, CHANNELS, QUERIES = 8, 4, 256, 100


@dataclass(frozen=True)
class Case:
    """One op on one input; ``work`` says what has to be moved or computed."""

    name: str
    inputs: dict[str, Array]
    sizes: tuple[tuple[int, int], ...]
    work: str

    def session(self, form: Any, threads: int) -> onnxruntime.InferenceSession:
        """The op alone, in one of the two forms."""
        g, lowering = Graph(), Lowering(form)
        names = list(self.inputs)
        if len(names) == 2:
            output = lowering.ms_deform_attn(
                g, *names, (), self.sizes, heads=HEADS, points=POINTS, channels=CHANNELS
            )
        else:
            output = lowering.masked_attention(g, names, heads=HEADS, channels=CHANNELS)
        g.prune([output])
        graph = helper.make_graph(
            g.nodes,
            "op",
            [helper.make_tensor_value_info(n, 1, a.shape) for n, a in self.inputs.items()],
            [onnx.ValueInfoProto(name=output)],
            [numpy_helper.from_array(a, n) for n, a in g.initializers.items()],
        )
        opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid("m2f", 1)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION)
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = threads
        if form == "plugin":
            options.register_custom_ops_library(str(library.find()))
        return onnxruntime.InferenceSession(model.SerializeToString(), options)


def deformable(size: int) -> Case:
    """MSDeformAttn as in the pixel decoder of an image of size x size."""
    rng = np.random.default_rng(0)
    sizes = tuple((size // s, size // s) for s in (32, 16, 8))
    positions = sum(h * w for h, w in sizes)
    samples = HEADS * len(sizes) * POINTS
    sampling = rng.standard_normal((1, positions, 3 * samples)).astype(np.float32)
    sampling[..., : 2 * samples] *= 2.5
    value = rng.standard_normal((1, positions, CHANNELS)).astype(np.float32)
    loads = positions * samples * 4 * (CHANNELS // HEADS) * 4
    inputs = {"value": value, "sampling": sampling}
    return Case(f"MSDeformAttn {size}", inputs, sizes, f"{loads / 1e6:.0f} MB of loads")


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
    return Case(f"MaskedAttention S={positions} {origin}", inputs, (), work)


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


def bound(session: onnxruntime.InferenceSession, inputs: dict[str, Array]) -> Callable[[], Any]:
    """One run whose inputs and output stay in ONNX Runtime's memory, as inside a network."""
    binding = session.io_binding()
    for name, array in inputs.items():
        binding.bind_cpu_input(name, array)
    binding.bind_output(session.get_outputs()[0].name)
    return functools.partial(session.run_with_iobinding, binding)


def measure(case: Case, threads: int, runs: int, clock: Callable[[], float]) -> str:
    """One line of the report."""
    portable, native = (case.session(form, threads) for form in ("portable", "plugin"))
    runs_of = [bound(session, case.inputs) for session in (portable, native)]
    expected, actual = (s.run(None, case.inputs)[0] for s in (portable, native))
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(runs):
        for run, taken in zip(runs_of, times, strict=True):
            start = clock()
            run()
            taken.append(1e3 * (clock() - start))
    quartiles = [np.percentile(t, (25, 50, 75)) for t in times]
    spread = [f"{q[1]:8.2f} ({q[0]:.2f} to {q[2]:.2f})" for q in quartiles]
    ratio = quartiles[0][1] / quartiles[1][1]
    error = abs(expected - actual).max()
    return (
        f"{case.name:34s} portable {spread[0]:28s} native {spread[1]:26s} {ratio:5.1f}x  "
        f"max error {error:.1e}  {case.work}"
    )


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
