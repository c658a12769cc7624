"""What a half-precision file means, computed on any CPU.

Sums in float32, and every result rounded to the type it is stored in: what tensor cores do.
ONNX Runtime's CPU does neither reliably. It can convert to and from bfloat16 and little
else; float16 it computes in float32 and keeps so between nodes, or adds up in float16 where
the processor can. So a file is judged by its meaning, and alike on every machine.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import onnx
from onnx import helper

from m2f.export.half import NOT_FLOAT, TYPES

FLOAT = int(onnx.TensorProto.FLOAT)

MOVES = frozenset(
    {"Concat", "Expand", "Gather", "Identity", "MaxPool", "Pad", "Relu", "Reshape", "Slice"}
    | {"Split", "Squeeze", "Transpose", "Unsqueeze"}
)
"""Ops whose results are numbers they read: there is nothing to round."""

OTHERWISE = NOT_FLOAT | {"Cast"}
"""Ops that give no half, whatever they read."""


def half_of(model: onnx.ModelProto) -> int | None:
    """The half type that a file's weights have; None if it is all float32."""
    stored = {tensor.data_type for tensor in model.graph.initializer}
    return next((kind for kind in TYPES.values() if kind in stored), None)


def emulated(model: onnx.ModelProto, kind: int) -> onnx.ModelProto:
    """A copy of a half model whose half tensors are float32 ones of the same values.

    Args:
        model: As `m2f.export.half` types it; its weights' data may be elsewhere.
        kind: Its half type.
    """
    result = onnx.ModelProto()
    result.CopyFrom(model)
    stored = [t.name for t in result.graph.initializer if t.data_type == kind]
    nodes = [_cast(name, f"{name}.widened", FLOAT) for name in stored]
    names = {name: f"{name}.widened" for name in stored}
    nodes += _emulated(result.graph.node, names, set(stored), kind)
    del result.graph.node[:]
    result.graph.node.extend(nodes)
    for output in result.graph.output:
        if output.type.tensor_type.elem_type == kind:
            output.type.tensor_type.elem_type = FLOAT
    for function in result.functions:
        nodes = _emulated(function.node, {}, set(function.input), kind)
        del function.node[:]
        function.node.extend(nodes)
    return result


def _emulated(
    nodes: Iterable[onnx.NodeProto], names: Mapping[str, str], half: set[str], kind: int
) -> list[onnx.NodeProto]:
    """The nodes in float32.

    Args:
        nodes: Of a graph or body.
        names: What to read instead of a stored tensor.
        half: Tensors that are half so far.
        kind: The half type.
    """
    new: list[onnx.NodeProto] = []
    for node in nodes:
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        copy.input[:] = [names.get(name, name) for name in node.input]
        new.append(copy)
        is_made = _makes(kind, node)
        if not is_made and (node.op_type in OTHERWISE or not half.intersection(node.input)):
            continue
        half.update(node.output)
        if node.op_type in MOVES:
            continue
        for i, name in enumerate(node.output):
            copy.output[i] = f"{name}.{'stored' if is_made else 'exact'}"
            copy.name = copy.output[0]
            if not is_made:
                new.append(_cast(copy.output[i], f"{name}.stored", kind))
            new.append(_cast(f"{name}.stored", name, FLOAT))
    return new


def _makes(kind: int, node: onnx.NodeProto) -> bool:
    """Whether a node makes half numbers of others."""
    if node.op_type == "Constant":
        return bool(node.attribute[0].t.data_type == kind)
    return node.op_type == "Cast" and any(a.i == kind for a in node.attribute)


def _cast(source: str, result: str, kind: int) -> onnx.NodeProto:
    return helper.make_node("Cast", [source], [result], name=result, to=kind)
