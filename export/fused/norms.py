"""LayerNorm and GroupNorm: over all threads, and with the activation that follows."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx

from m2f.export.fused.linear import NONE, RELU
from m2f.export.fused.match import Match, fused_node
from m2f.export.rewrite import Rewrite, attribute


def layer_norms(graph: Rewrite) -> Iterator[Match]:
    """Every layer norm of the last axis."""
    for node in graph.nodes:
        if node.op_type != "LayerNormalization" or attribute(node, "axis") != -1:
            continue
        if len(node.input) == 3 and len(node.output) == 1:
            epsilon = attribute(node, "epsilon")
            new = fused_node("LayerNorm", node.input, node.output[0], epsilon=epsilon)
            yield Match([new], [node])


def group_norms(graph: Rewrite) -> Iterator[Match]:
    """Every group norm, which is written as six nodes (`m2f.export.layers.group_norm`)."""
    for norm in graph.nodes:
        if norm.op_type == "InstanceNormalization":
            match = _around(graph, norm)
            if match is not None:
                yield match


def _around(graph: Rewrite, norm: onnx.NodeProto) -> Match | None:
    grouped = graph.made_by.get(norm.input[0])
    if grouped is None or grouped.op_type != "Reshape":
        return None
    nodes = [grouped, norm]
    for kind in ("Reshape", "Mul", "Add"):
        after = graph.only_reader(nodes[-1].output[0])
        if after is None or after.op_type != kind:
            return None
        nodes.append(after)
    ones, zeros = (graph.arrays.get(name) for name in norm.input[1:])
    names = [graph.constant_input(node) for node in nodes[-2:]]
    if ones is None or zeros is None or None in names or not np.all(ones == 1) or np.any(zeros):
        return None
    arrays = {f"{name}.flat": graph.arrays[name].reshape(-1) for name in names if name}
    inputs, activation = [grouped.input[0], *arrays], NONE
    after = graph.only_reader(nodes[-1].output[0])
    if after is not None and after.op_type == "Relu":
        activation = RELU
        nodes.append(after)
    elif after is not None and (coarse := _enlarged(graph, after)) is not None:
        inputs.append(coarse.input[0])
        nodes += [coarse, after]
    new = fused_node(
        "GroupNorm",
        inputs,
        nodes[-1].output[0],
        groups=len(ones),
        epsilon=attribute(norm, "epsilon"),
        activation=activation,
    )
    return Match([new], nodes, arrays)


def _enlarged(graph: Rewrite, addition: onnx.NodeProto) -> onnx.NodeProto | None:
    """What an addition's other side is, if that is a map of half the size, enlarged for it."""
    if addition.op_type != "Add":
        return None
    makers = [graph.made_by.get(name) for name in addition.input]
    for maker in makers:
        if maker is None or maker.op_type != "Resize" or len(maker.input) < 3:
            continue
        how = [attribute(maker, name) for name in ("mode", "coordinate_transformation_mode")]
        scales = graph.arrays.get(maker.input[2], np.empty(0))
        if how == [b"linear", b"half_pixel"] and scales.tolist() == [1, 1, 2, 2]:
            return maker
    return None
