"""A finished graph, opened for changing: who makes each tensor, who reads it, what it holds.

What rewrites of a whole file (its precision, its Q/DQ nodes) have in common. The nodes' names
stay, and with them what each tensor means.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import onnx
from onnx import helper, numpy_helper

from m2f.export.graph import OPSET, Array, Value


class Rewrite:
    """One graph or function body, indexed.

    Args:
        nodes: Of the graph, in an order in which they can run; not changed.
        arrays: Initializers' data by name; copied.
    """

    def __init__(self, nodes: Iterable[onnx.NodeProto], arrays: Mapping[str, Array]) -> None:
        self.nodes: list[onnx.NodeProto] = []
        for node in nodes:
            copy = onnx.NodeProto()
            copy.CopyFrom(node)
            self.nodes.append(copy)
        self.arrays = dict(arrays)
        self.made_by = {name: node for node in self.nodes for name in node.output}
        self.place = {node.output[0]: i for i, node in enumerate(self.nodes)}
        self.read_by: dict[Value, list[onnx.NodeProto]] = {}
        for node in self.nodes:
            for name in dict.fromkeys(node.input):
                self.read_by.setdefault(name, []).append(node)

    def only_reader(self, tensor: Value) -> onnx.NodeProto | None:
        """The node that alone reads a tensor, else None."""
        readers = self.read_by.get(tensor, [])
        return readers[0] if len(readers) == 1 else None

    def constant_input(self, node: onnx.NodeProto) -> Value | None:
        """The input of a two-input node that is a weight or constant, if one is."""
        return next((name for name in node.input if name in self.arrays), None)


def attribute(node: onnx.NodeProto, name: str) -> object | None:
    """An attribute's value, None where it is not there."""
    found = (helper.get_attribute_value(a) for a in node.attribute if a.name == name)
    return next(found, None)


IR_OF_OPSET = {19: 9, 22: 10}
"""The IR version of each opset's ONNX release."""


def with_opset(
    model: onnx.ModelProto, arrays: Mapping[str, Array], opset: int
) -> tuple[onnx.ModelProto, dict[str, Array]]:
    """The same graph in a newer opset, one that has more types.

    Of the ops we use only ReduceMax was written differently before: its axes were an
    attribute until opset 18.
    """
    result = onnx.ModelProto()
    result.CopyFrom(model)
    known = dict(arrays)
    if opset == OPSET:
        return result, known
    result.ir_version = IR_OF_OPSET[opset]
    for proto in (result, *result.functions):
        for entry in proto.opset_import:
            entry.version = opset if not entry.domain else entry.version
    for node in result.graph.node:
        for axes in _axes_taken(node):
            known[node.input[1]] = axes
    for function in result.functions:
        constants = []
        for node in function.node:
            for axes in _axes_taken(node):
                tensor = numpy_helper.from_array(axes, node.input[1])
                constants.append(
                    helper.make_node("Constant", [], [node.input[1]], value=tensor)
                )
        nodes = [*constants, *function.node]
        del function.node[:]
        function.node.extend(nodes)
    return result, known


def _axes_taken(node: onnx.NodeProto) -> Iterable[Array]:
    """Makes a ReduceMax's axes its second input; gives what that is to hold, if it is one."""
    axes = attribute(node, "axes")
    if node.op_type != "ReduceMax" or axes is None:
        return
    kept = [a for a in node.attribute if a.name != "axes"]
    del node.attribute[:]
    node.attribute.extend(kept)
    node.input.append(f"{node.output[0]}.axes")
    yield np.array(axes, np.int64)
