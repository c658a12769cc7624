"""Linear: a product with weights, its bias, and what comes right after."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx

from m2f.export.fused.match import Match, fused_node
from m2f.export.graph import Value
from m2f.export.rewrite import Rewrite

NONE, RELU, GELU = 0, 1, 2
"""Values of the op's attribute `activation`."""

_NEAR = 400
"""Nodes to look back for the other end of a residual connection: a block of a network."""


def linears(graph: Rewrite) -> Iterator[Match]:
    """Every product with a matrix of weights, as far as it goes on alone."""
    for product in graph.nodes:
        weight = graph.arrays.get(product.input[1]) if product.op_type == "MatMul" else None
        if weight is not None and weight.ndim == 2 and weight.dtype == np.float32:
            yield _from_product(graph, product)


def _from_product(graph: Rewrite, product: onnx.NodeProto) -> Match:
    x, weight = product.input
    chain, arrays = [product], {}
    bias = _added_weight(graph, product)
    if bias is not None:
        chain.append(bias)
        vector = graph.constant_input(bias)
        assert vector is not None
    else:
        columns = graph.arrays[weight].shape[1]
        vector = f"zeros.{columns}"
        arrays[vector] = np.zeros(columns, np.float32)
    inputs = [x, weight, vector]
    activation, more = _activation(graph, chain[-1].output[0])
    chain += more
    if activation == NONE and (last := _residual(graph, x, chain[-1].output[0])) is not None:
        inputs += [name for name in last.input if name != chain[-1].output[0]]
        chain.append(last)
    node = fused_node("Linear", inputs, chain[-1].output[0], activation=activation)
    return Match([node], chain, arrays)


def _added_weight(graph: Rewrite, product: onnx.NodeProto) -> onnx.NodeProto | None:
    """The addition of a bias, where that is all that happens to a product."""
    reader = graph.only_reader(product.output[0])
    if reader is None or reader.op_type != "Add":
        return None
    bias = graph.constant_input(reader)
    is_vector = bias is not None and graph.arrays[bias].ndim == 1
    return reader if is_vector else None


def _activation(graph: Rewrite, x: Value) -> tuple[int, list[onnx.NodeProto]]:
    """What is done to x alone, and by which nodes."""
    reader = graph.only_reader(x)
    if reader is not None and reader.op_type == "Relu":
        return RELU, [reader]
    nodes = gelu_nodes(graph, x)
    return (GELU, nodes) if nodes else (NONE, [])


def gelu_nodes(graph: Rewrite, x: Value) -> list[onnx.NodeProto]:
    """The nodes of `m2f.export.layers.gelu`, if they are what reads x."""
    readers = {node.op_type: node for node in graph.read_by.get(x, [])}
    if readers.keys() != {"Div", "Mul"}:
        return []
    nodes = [readers["Div"]]
    for kind in ("Erf", "Add", "Mul", "Mul"):
        after = graph.only_reader(nodes[-1].output[0])
        if after is None or after.op_type != kind:
            return []
        nodes.append(after)
    divided, _, shifted, scaled, halved = nodes
    constants = [graph.constant_input(node) for node in (divided, shifted, halved)]
    values = [graph.arrays[name] for name in constants if name is not None]
    if len(values) < 3 or scaled is not readers["Mul"]:
        return []
    return nodes if np.allclose(np.ravel(values), [np.sqrt(2.0), 1.0, 0.5]) else []


def _residual(graph: Rewrite, source: Value, y: Value) -> onnx.NodeProto | None:
    """The addition of what the layer's block began with.

    That is a tensor which the layer's own input was made of; any other, of a position for one,
    may be broadcast.
    """
    reader = graph.only_reader(y)
    if reader is None or reader.op_type != "Add" or len(set(reader.input)) < 2:
        return None
    (other,) = (name for name in reader.input if name != y)
    return reader if _is_made_of(graph, source, other) else None


def _is_made_of(graph: Rewrite, tensor: Value, ancestor: Value) -> bool:
    """Whether a tensor depends on another one, not far back."""
    queue, seen = [tensor], {tensor}
    while queue and len(seen) < _NEAR:
        name = queue.pop(0)
        if name == ancestor:
            return True
        maker = graph.made_by.get(name)
        before = () if maker is None else maker.input
        new = [n for n in before if n and n not in seen and n not in graph.arrays]
        seen.update(new)
        queue += new
    return False
