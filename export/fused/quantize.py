"""Quantize: the 8-bit numbers that products read, made right from what an activation takes."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx

from m2f.export.fused.linear import GELU, NONE, RELU, gelu_nodes
from m2f.export.fused.match import Match, fused_node
from m2f.export.graph import Value
from m2f.export.rewrite import Rewrite


def quantisations(graph: Rewrite) -> Iterator[Match]:
    """Every QuantizeLinear, by one known scale, whose numbers only matrix products read.

    What else reads them may be the half of a pair that ONNX Runtime looks for itself: a
    convolution in 8 bits needs that its input is a QuantizeLinear's.
    """
    for node in graph.nodes:
        if node.op_type != "QuantizeLinear" or not _is_per_tensor(graph, node):
            continue
        readers = graph.read_by.get(node.output[0], [])
        if not readers or any(r.op_type != "MatMulIntegerToFloat" for r in readers):
            continue
        x, activation, before = _activated(graph, node.input[0])
        inputs = [x, *node.input[1:]]
        new = fused_node("Quantize", inputs, node.output[0], activation=activation)
        yield Match([new], [*before, node])


def _is_per_tensor(graph: Rewrite, node: onnx.NodeProto) -> bool:
    """Whether all numbers have the same scale and zero, known and of types that we take."""
    if len(node.input) < 3 or any(name not in graph.arrays for name in node.input[1:]):
        return False
    scale, zero = (graph.arrays[name] for name in node.input[1:])
    is_known = scale.dtype == np.float32 and zero.dtype in (np.dtype("u1"), np.dtype("i1"))
    return is_known and scale.ndim == zero.ndim == 0


def _activated(graph: Rewrite, y: Value) -> tuple[Value, int, list[onnx.NodeProto]]:
    """What a tensor is an activation of, which, and by which nodes that no others read."""
    last = graph.made_by.get(y)
    if last is None or graph.only_reader(y) is None:
        return y, NONE, []
    if last.op_type == "Relu":
        return last.input[0], RELU, [last]
    if last.op_type == "Mul":  # a GELU's last is by 1/2, the one before by its input
        for scaled in filter(None, map(graph.made_by.get, last.input)):
            for x in scaled.input:
                nodes = gelu_nodes(graph, x)
                if nodes and nodes[-1] is last:
                    return x, GELU, nodes
    return y, NONE, []
