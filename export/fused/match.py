"""What a fusion proposes, and its replacement in a graph."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import onnx
from onnx import helper

from m2f.export.graph import Array, Value
from m2f.export.rewrite import Rewrite
from m2f.plugins import FUSED

DOMAIN = FUSED[0].domain
"""Of the ops that only our native library has."""


@dataclass(frozen=True)
class Match:
    """Nodes that others can take the place of.

    Attributes:
        nodes: The new ones; the last one's output is that of the last of the old.
        replaced: The old ones.
        arrays: Weights that the new ones need and the graph does not have yet.
    """

    nodes: Sequence[onnx.NodeProto]
    replaced: Sequence[onnx.NodeProto]
    arrays: Mapping[str, Array] = field(default_factory=dict)


def fused_node(
    op: str, inputs: Sequence[Value], output: Value, **attributes: Any
) -> onnx.NodeProto:
    """A node of our own; it is called after its result, as all nodes are."""
    return helper.make_node(op, inputs, [output], name=output, domain=DOMAIN, **attributes)


def replace(graph: Rewrite, matches: Iterable[Match], outputs: Sequence[Value]) -> Rewrite:
    """Makes those replacements that leave every other reader its tensor.

    Args:
        graph: As it is.
        matches: In any order; of two that share a node, the first is made.
        outputs: Of the graph.
    """
    gone: set[Value] = set()  # by first output, which names a node
    new: dict[Value, Sequence[onnx.NodeProto]] = {}
    arrays = dict(graph.arrays)
    for match in matches:
        result = match.nodes[-1].output[0]
        names = {node.output[0] for node in match.replaced}
        inner = {name for node in match.replaced for name in node.output} - {result}
        readers = (reader for name in inner for reader in graph.read_by.get(name, []))
        is_closed = all(reader.output[0] in names for reader in readers)
        if names & gone or inner.intersection(outputs) or not is_closed:
            continue
        gone |= names
        new[result] = match.nodes
        arrays |= match.arrays
    nodes: list[onnx.NodeProto] = []
    for node in graph.nodes:
        name = node.output[0]
        if name in new:  # where the last of the old ones stood, all inputs are there
            nodes += new[name]
        elif name not in gone:
            nodes.append(node)
    return Rewrite(nodes, arrays)
