"""A whole network, fused."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import onnx
from onnx import helper

from m2f.export.fused.integer import ORT_DOMAIN, integer_products
from m2f.export.fused.linear import linears
from m2f.export.fused.match import DOMAIN, Match, replace
from m2f.export.fused.norms import group_norms, layer_norms
from m2f.export.fused.quantize import quantisations
from m2f.export.fused.windows import window_attentions
from m2f.export.graph import Array, pruned
from m2f.export.rewrite import Rewrite
from m2f.plugins import FUSED

Fusion = Callable[[Rewrite], Iterator[Match]]

FUSIONS: tuple[Fusion, ...] = (
    window_attentions,
    group_norms,
    layer_norms,
    integer_products,
    quantisations,
    linears,
)
"""In the order they are made: attention leaves linear layers for the last, and products in 8
bits need their numbers from a QuantizeLinear that they find."""


def fuse(
    model: onnx.ModelProto, arrays: Mapping[str, Array]
) -> tuple[onnx.ModelProto, dict[str, Array]] | None:
    """The network for our CPU kernels.

    Args:
        model: In float32, without initializers, in the plugin form.
        arrays: Their data, by name.

    Returns:
        The same with the ops of `m2f.cpu`, and its initializers: those of the old that it
        still needs, and a few small new ones. None where there is nothing to fuse.
    """
    graph = Rewrite(model.graph.node, arrays)
    outputs = [output.name for output in model.graph.output]
    for fusion in FUSIONS:
        made = replace(graph, list(fusion(graph)), outputs)
        nodes, needed = pruned(made.nodes, outputs)  # the next one sees no dead readers
        graph = Rewrite(nodes, made.arrays)
    if not any(node.domain == DOMAIN for node in graph.nodes):
        return None
    result = onnx.ModelProto()
    result.CopyFrom(model)
    del result.graph.node[:]
    result.graph.node.extend(graph.nodes)
    domains = {DOMAIN: FUSED[0].version, ORT_DOMAIN: 1}
    result.opset_import.extend(helper.make_opsetid(*entry) for entry in domains.items())
    inputs = {port.name for port in model.graph.input}
    return result, {n: a for n, a in graph.arrays.items() if n in needed or n in inputs}
