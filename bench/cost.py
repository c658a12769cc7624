"""What a network costs at one image size: products, bytes and nodes, part by part.

Counted from the ONNX graph, so it is the cost of the file that runs, rewrites included.

    macs        multiply-accumulates of convolutions, matrix products and the two custom ops:
                what any implementation computes. Masked attention counts as if no position
                were hidden; deformable attention counts its four corners per sample.
    weights     bytes of stored tensors that nodes read
    activations bytes of computed tensors that nodes read and write

Bytes are counted as if every node ran alone, each input read and each output written once;
views (reshapes) move nothing, and what depends on no input is computed only once. A runtime
that fuses nodes moves less.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import onnx
from onnx import helper

from m2f.bench.parts import KINDS, PARTS, Kind, kind_of, parts_of
from m2f.bench.shapes import Shape, Tensor, tensors
from m2f.bundle import Bundle
from m2f.errors import UsageError
from m2f.export.network import IMAGE

CORNERS = 4
"""Pixels that one bilinear sample blends."""

_VIEWS = {"Reshape", "Squeeze", "Unsqueeze", "Flatten", "Identity", "Shape"}
_PICKS = {"Gather", "Slice", "GatherElements", "GatherND"}
"""Ops that read no more of their first input than they write."""


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one node or of many.

    Attributes:
        macs: Multiply-accumulates.
        weights: Bytes of stored tensors read.
        activations: Bytes of computed tensors read and written.
        nodes: How many.
    """

    macs: int = 0
    weights: int = 0
    activations: int = 0
    nodes: int = 0

    @property
    def bytes(self) -> int:
        """Moved in all."""
        return self.weights + self.activations

    def to_json(self) -> dict[str, int]:
        """Ready for ``json.dump``."""
        return {
            "macs": self.macs,
            "weight_bytes": self.weights,
            "activation_bytes": self.activations,
            "nodes": self.nodes,
        }

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            self.macs + other.macs,
            self.weights + other.weights,
            self.activations + other.activations,
            self.nodes + other.nodes,
        )

    def __sub__(self, other: Cost) -> Cost:
        return Cost(
            self.macs - other.macs,
            self.weights - other.weights,
            self.activations - other.activations,
            self.nodes - other.nodes,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class CostReport:
    """What a network costs.

    Attributes:
        size: Batch, height and width of the image.
        cells: By part and kind of work; what does not occur is left out.
    """

    size: tuple[int, int, int]
    cells: Mapping[tuple[str, Kind], Cost]

    @property
    def total(self) -> Cost:
        """Of all of it."""
        return _sum(self.cells.values())

    def part(self, part: str) -> Cost:
        """Of one part."""
        return _sum(cost for (p, _), cost in self.cells.items() if p == part)

    def kind(self, kind: Kind) -> Cost:
        """Of one kind of work."""
        return _sum(cost for (_, k), cost in self.cells.items() if k == kind)

    @property
    def parts(self) -> dict[str, Cost]:
        """By part, in the network's order."""
        return {p: self.part(p) for p in PARTS if any(key[0] == p for key in self.cells)}

    @property
    def kinds(self) -> dict[Kind, Cost]:
        """By kind of work."""
        return {k: self.kind(k) for k in KINDS if any(key[1] == k for key in self.cells)}


def cost_of_bundle(bundle: Bundle, size: tuple[int, int] | None = None) -> CostReport:
    """Counts a bundle's network for one image.

    Args:
        bundle: In any form and precision.
        size: Height and width, pixels; may be left out where the bundle takes only one.

    Raises:
        UsageError: The bundle does not take this size, or takes several and none is given.
        BundleError: It holds an op that cannot be counted.
    """
    profile = bundle.manifest.profile
    if size is None:
        if not profile.is_fixed:
            raise UsageError(
                f"{bundle.path}: takes any image of {profile.height} by {profile.width} "
                "pixels; say which size to count with --size"
            )
        size = (profile.height.min, profile.width.min)
    if size[0] not in profile.height or size[1] not in profile.width:
        raise UsageError(
            f"{bundle.path}: takes images of {profile.height} by {profile.width} pixels, not "
            f"{size[0]} by {size[1]}; choose another --size"
        )
    return cost_of_file(bundle.model_path, (profile.batch.min, *size))


def cost_of_file(path: Path, size: tuple[int, int, int]) -> CostReport:
    """Counts an ONNX file's network; ``size``: batch, height and width of `image`."""
    return cost(onnx.load(str(path), load_external_data=False), size)


def cost(model: onnx.ModelProto, size: tuple[int, int, int]) -> CostReport:
    """Counts a network; see `cost_of_file`."""
    found = tensors(model, {IMAGE: (*size, 3)})
    cells: dict[tuple[str, Kind], Cost] = {}
    nodes = model.graph.node
    for node, part in zip(nodes, parts_of(nodes), strict=True):
        key = (part, kind_of(node.op_type))
        cells[key] = cells.get(key, Cost()) + _of_node(node, found)
    return CostReport(size=size, cells=cells)


def _of_node(node: onnx.NodeProto, found: Mapping[str, Tensor]) -> Cost:
    outputs = [found[name] for name in node.output if name]
    if all(output.is_constant for output in outputs) or node.op_type in _VIEWS:
        return Cost(nodes=1)
    inputs = [found[name] for name in node.input if name]
    if node.op_type == "MSDeformAttn":
        inputs = inputs[:2]  # of the maps only the shapes are read
    weights = sum(tensor.bytes for tensor in inputs if tensor.is_stored)
    read = [tensor.bytes for tensor in inputs if not tensor.is_stored]
    written = sum(tensor.bytes for tensor in outputs)
    if node.op_type in _PICKS and not inputs[0].is_stored:
        read[0] = min(read[0], written)
    return Cost(_macs(node, inputs, outputs[0]), weights, sum(read) + written, 1)


def _macs(node: onnx.NodeProto, inputs: list[Tensor], output: Tensor) -> int:
    shapes = [tensor.shape for tensor in inputs]
    given = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    match node.op_type:
        case "Conv":
            return output.size * math.prod(shapes[1][1:])
        case "MatMul" | "Linear" | "MatMulIntegerToFloat":
            return output.size * shapes[0][-1]
        case "Gemm":
            return output.size * shapes[0][0 if given.get("transA") else 1]
        case "WindowAttention":
            return _windowed(output.shape, given["window"])
        case "MSDeformAttn":
            return _deformable(shapes[0], shapes[1], given["heads"])
        case "MaskedAttention":
            return 2 * math.prod(shapes[0]) * shapes[1][1]
    return 0


def _windowed(output: Shape, window: int) -> int:
    """Every pixel of a window with each, twice; windows at the border are whole."""
    batch, height, width, channels = output
    windows = -(-height // window) * -(-width // window)
    return 2 * batch * windows * window**4 * channels


def _deformable(value: Shape, sampling: Shape, heads: int) -> int:
    """N S M L P samples, each of four corners of D channels."""
    samples = math.prod(sampling) // 3
    return samples * CORNERS * (value[2] // heads)


def _sum(costs: Iterable[Cost]) -> Cost:
    return sum(costs, Cost())
