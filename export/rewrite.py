"""A finished graph, opened for changing: who makes each tensor, who reads it, what it holds.

What rewrites of a whole file (its precision, its Q/DQ nodes) have in common. The nodes' names
stay, and with them what each tensor means.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import onnx
from onnx import helper

from m2f.export.graph import Array, Value


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
