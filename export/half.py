"""Half precision: which tensors of a float32 graph become float16 or bfloat16.

Not all of them. What stays in float32, each for its own reason:

* what is normalised, and the statistics: images less their mean, group norms, softmax with
  the scores it reads (LayerNormalization keeps its statistics in float32 by itself, and
  stays one op);
* coordinates: position encodings, and where deformable attention samples. Half has 11
  significant bits: near column 256 that is an eighth of a pixel;
* decisions: the mask logits that masked attention compares with zero, and both outputs.
  They are sums of half products, as everything is; only the last additions are theirs;
* layers named in a plan, whose values half cannot hold.

Products stay half even then where they can: Turing multiplies no float32 matrices.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import ml_dtypes
import numpy as np
import onnx
from onnx import helper, numpy_helper

from m2f.bundle import Base
from m2f.errors import ExportError
from m2f.export.graph import Array, Value
from m2f.export.network import CLASS_LOGITS, MASK_LOGITS
from m2f.export.rewrite import Rewrite
from m2f.export.transformer_decoder import ATTENTION_LOGITS
from m2f.plugins import OPS

FLOAT = int(onnx.TensorProto.FLOAT)
TYPES: Mapping[Base, int] = {
    "fp16": int(onnx.TensorProto.FLOAT16),
    "bf16": int(onnx.TensorProto.BFLOAT16),
}
DTYPES = {
    TYPES["fp16"]: np.dtype(np.float16),
    TYPES["bf16"]: np.dtype(ml_dtypes.bfloat16),
    FLOAT: np.dtype(np.float32),
}

ALWAYS_HALF = frozenset(
    {"Conv", "MatMul", "LayerNormalization", "DequantizeLinear", *(op.name for op in OPS)}
)
NOT_FLOAT = frozenset(
    {"And", "Equal", "GreaterOrEqual", "Less", "Not", "QuantizeLinear", "Range", "Shape"}
)
"""Ops whose results are no floats."""

IS_FLOAT = frozenset({"Constant", "DequantizeLinear", "MSDeformAttn"})
"""Ops whose results are floats, whatever their first input is."""

SUMS = frozenset({"Add", "Identity", "Mul", "Reshape", "Resize", "Sub", "Where"})
"""What lies between a product and the softmax, decision or output that it is made for."""

COORDINATES = SUMS | {"Gather", "Max", "Min", "Split"}
"""What lies between a product and the sampling locations it is made for."""


def half_from_float(
    model: onnx.ModelProto, arrays: Mapping[str, Array], *, base: Base, wide: Iterable[str] = ()
) -> tuple[onnx.ModelProto, dict[str, Array]]:
    """Types a float32 graph as half, but for what must not be.

    Inputs and outputs of the graph keep their types.

    Args:
        model: As the exporter makes it, either form, with or without Q/DQ nodes.
        arrays: Its weights by name.
        base: "fp16" or "bf16".
        wide: Nodes that stay in float32, by name.

    Raises:
        ExportError: Weights that half cannot hold; names them.
    """
    half = TYPES[base]
    typed = _Typing(Rewrite(model.graph.node, arrays), half, frozenset(wide))
    typed.run({})
    result = onnx.ModelProto()
    result.CopyFrom(model)
    del result.graph.node[:]
    result.graph.node.extend(typed.nodes)
    for function in result.functions:
        nodes, constants = _without_constants(function.node)
        body = _Typing(Rewrite(nodes, constants), half, frozenset())
        body.run(dict.fromkeys(function.input, half))
        del function.node[:]
        function.node.extend(_constant(name, array) for name, array in body.arrays.items())
        function.node.extend(body.nodes)
    return result, typed.arrays


class _Typing:
    """Gives every float tensor of one graph or function body a type.

    Args:
        graph: In float32.
        half: Type to prefer.
        wide: Nodes that stay in float32.
    """

    def __init__(self, graph: Rewrite, half: int, wide: frozenset[str]) -> None:
        self.graph, self.half, self.wide = graph, half, wide
        self.nodes: list[onnx.NodeProto] = []
        self.arrays: dict[str, Array] = {
            name: a for name, a in graph.arrays.items() if a.dtype != np.float32
        }
        self.islands, self.returning = _islands(graph)
        self.actual: dict[Value, int] = {}
        """Type of each float tensor."""
        self.meant: dict[Value, int] = {}
        """Type that its readers should prefer: half after an island that has an end."""
        self._casts: dict[tuple[Value, int], Value] = {}

    def run(self, inputs: Mapping[Value, int]) -> None:
        """Types all nodes; ``inputs`` are the types of a function's float inputs."""
        self.actual |= inputs
        self.meant |= inputs
        for node in self.graph.nodes:
            kind = self._kind(node)
            is_float = _is_float(node, self.actual, self.graph.arrays)
            self._feed(node, kind)
            self.nodes.append(node)
            if is_float:
                self._result(node, kind)

    def _kind(self, node: onnx.NodeProto) -> int:
        """The type a node computes in."""
        if node.name in self.wide or node.output[0] in self.islands or node.op_type == "Cast":
            return FLOAT
        if node.op_type in ALWAYS_HALF:
            return self.half
        if node.op_type == "QuantizeLinear":
            return self.actual[node.input[0]]
        meant = {self.meant[name] for name in node.input if name in self.meant}
        return self.half if self.half in meant else FLOAT

    def _feed(self, node: onnx.NodeProto, kind: int) -> None:
        """Casts a node's float inputs to its type."""
        if node.op_type == "Cast":
            return
        for i, name in enumerate(node.input):
            if node.op_type == "Resize" and i > 0:
                self._keep(name)
            elif name in self.actual:
                node.input[i] = self._cast(name, kind)
            elif name in self.graph.arrays and self.graph.arrays[name].dtype == np.float32:
                node.input[i] = self._constant(name, kind)

    def _result(self, node: onnx.NodeProto, kind: int) -> None:
        """Notes the type of what a node gives."""
        is_back = node.name in self.wide or node.output[0] in self.returning
        for name in node.output:
            self.actual[name] = kind
            self.meant[name] = self.half if is_back else kind
        name = node.output[0]
        if kind == self.half and name.endswith(f".{ATTENTION_LOGITS}"):
            # A bare product: compared as what it is, in the type that decisions have.
            node.output[0] = f"{name}.product"
            self.nodes.append(_cast_node(node.output[0], name, FLOAT))
            self.actual[name] = self.meant[name] = FLOAT

    def _cast(self, name: Value, kind: int) -> Value:
        if self.actual[name] == kind:
            return name
        key = (name, kind)
        if key not in self._casts:
            self._casts[key] = f"{name}.as_{DTYPES[kind].name}"
            self.nodes.append(_cast_node(name, self._casts[key], kind))
        return self._casts[key]

    def _constant(self, name: Value, kind: int) -> Value:
        """A weight or constant in one of the two types; stored in both where both are read."""
        stored = self.arrays.get(name)
        if stored is not None and stored.dtype == DTYPES[kind]:
            return name
        key = name if stored is None else f"{name}.as_{DTYPES[kind].name}"
        if key not in self.arrays:
            self.arrays[key] = _converted(name, self.graph.arrays[name], kind)
        return key

    def _keep(self, name: Value) -> None:
        if name in self.graph.arrays:
            self.arrays[name] = self.graph.arrays[name]


def _islands(graph: Rewrite) -> tuple[set[Value], set[Value]]:
    """First results of the nodes that stay in float32, and of those that end an island."""
    inside: set[Value] = set()
    ends: set[Value] = set()
    for node in graph.nodes:
        name = node.output[0]
        is_decision = name.endswith(f".{ATTENTION_LOGITS}")
        if name in (CLASS_LOGITS, MASK_LOGITS) or (is_decision and node.op_type in SUMS):
            _add_upward(graph, name, SUMS, inside, alone=True)
        elif node.op_type == "Softmax":
            inside.add(name)
            _add_upward(graph, node.input[0], SUMS, inside, alone=True)
        elif node.op_type == "Floor":
            inside.add(name)
            _add_upward(graph, node.input[0], COORDINATES, inside, alone=False)
        elif node.op_type == "InstanceNormalization":
            inside.add(name)
            ends.add(_end_of_norm(graph, node))
    return inside, ends


def _add_upward(
    graph: Rewrite, name: Value, through: frozenset[str], inside: set[Value], *, alone: bool
) -> None:
    """Adds the nodes that lead to a tensor, up to the products they begin with.

    ``alone``: only those whose result nobody else reads.
    """
    node = graph.made_by.get(name)
    if node is None or node.op_type not in through or node.output[0] in inside:
        return
    inside.add(node.output[0])
    for source in node.input:
        if not alone or graph.only_reader(source):
            _add_upward(graph, source, through, inside, alone=alone)


def _end_of_norm(graph: Rewrite, node: onnx.NodeProto) -> Value:
    """The last result of a group norm that begins with an instance norm."""
    name: str = node.output[0]
    while (after := graph.only_reader(name)) and after.op_type in ("Reshape", "Mul", "Add"):
        if after.op_type != "Reshape" and graph.constant_input(after) is None:
            break
        name = after.output[0]
        if after.op_type == "Add":
            break
    return name


def _is_float(
    node: onnx.NodeProto, known: Mapping[Value, int], arrays: Mapping[str, Array]
) -> bool:
    """Whether a node's results are floats."""
    if node.op_type in NOT_FLOAT:
        return False
    if node.op_type == "Cast":
        return any(a.name == "to" and a.i in DTYPES for a in node.attribute)
    if node.op_type in IS_FLOAT:
        return True
    first = node.input[1 if node.op_type == "Where" else 0]
    return first in known or (first in arrays and arrays[first].dtype == np.float32)


def _cast_node(source: Value, result: Value, kind: int) -> onnx.NodeProto:
    return helper.make_node("Cast", [source], [result], name=result, to=kind)


def _converted(name: str, array: Array, kind: int) -> Array:
    """A constant in another type.

    Raises:
        ExportError: It is finite and the type cannot hold it.
    """
    with np.errstate(over="ignore"):
        result = array.astype(DTYPES[kind])
    lost = np.isfinite(array) & ~np.isfinite(result.astype(np.float32))
    if lost.any():
        raise ExportError(
            f"weight {name} has {int(lost.sum())} values that {DTYPES[kind].name} cannot "
            f"hold, up to {np.abs(array[lost]).max():.3g}, whose largest is "
            f"{_largest(kind):.5g}; export in fp32 or bf16"
        )
    return result


def _largest(kind: int) -> float:
    return float(ml_dtypes.finfo(DTYPES[kind]).max)  # type: ignore[no-untyped-call]


def _without_constants(
    nodes: Iterable[onnx.NodeProto],
) -> tuple[list[onnx.NodeProto], dict[str, Array]]:
    """A function's nodes, and its constants as arrays."""
    others, arrays = [], {}
    for node in nodes:
        if node.op_type == "Constant" and node.attribute[0].HasField("t"):
            arrays[node.output[0]] = numpy_helper.to_array(node.attribute[0].t)
        else:
            others.append(node)
    return others, arrays


def _constant(name: str, array: Array) -> onnx.NodeProto:
    value = numpy_helper.from_array(array, name)
    return helper.make_node("Constant", [], [name], value=value, name=name)
