"""WindowAttention: Swin's attention between two linear layers, in the map's own order."""

from __future__ import annotations

import math
from collections.abc import Iterator

import onnx
from onnx import helper

from m2f.export.fused.match import Match, fused_node
from m2f.export.graph import Value
from m2f.export.rewrite import Rewrite

_MOVES = frozenset({"Pad", "Reshape", "Transpose", "Slice", "Concat"})
"""Ops that only put pixels elsewhere: into windows, and back."""

_ROUNDS = frozenset({"QuantizeLinear", "DequantizeLinear"})
"""A pixel is rounded to the same number wherever it lies."""

_BIAS = "relative_position_bias"


def window_attentions(graph: Rewrite) -> Iterator[Match]:
    """The attention of every Swin block, with both its linear layers.

    The linear layers stay products with weights, for another fusion; they move to where
    pixels lie as in the map, which is the same for a layer that looks at one pixel at a time.
    """
    for name in graph.arrays:
        if name.endswith(f".{_BIAS}"):
            yield from _of_block(graph, name.removesuffix(_BIAS))


def _of_block(graph: Rewrite, scope: str) -> Iterator[Match]:
    """The attention whose weights lie in a scope."""
    qkv, proj = (graph.only_reader(f"{scope}{part}.weight") for part in ("qkv", "proj"))
    added = graph.only_reader(f"{scope}proj.bias")
    if qkv is None or proj is None or added is None:
        return
    entry = _before(graph, qkv.input[0])
    roundings = [graph.made_by.get(node.input[0]) for node in (qkv, proj)]
    result = _behind(graph, added.output[0])
    if entry is None or result is None:
        return
    region = _between(graph, entry, result)
    kinds = [node.op_type for node in region]
    if kinds.count("Softmax") != 1 or kinds.count("MatMul") != 4:
        return
    bias, padding = f"{scope}{_BIAS}", f"{scope}qkv.bias.rows"
    projected, attended = f"{scope}qkv.map", f"{scope}attended.map"
    window = math.isqrt(graph.arrays[bias].shape[1])
    attention = fused_node(
        "WindowAttention",
        [projected, padding, bias],
        attended,
        window=window,
        shift=window // 2 if "Concat" in kinds else 0,
    )
    nodes = [
        *_linear(f"{scope}qkv", entry, projected, roundings[0]),
        attention,
        *_linear(f"{scope}proj", attended, result, roundings[1]),
    ]
    yield Match(nodes, region, {padding: graph.arrays[f"{scope}qkv.bias"].reshape(3, -1)})


def _linear(
    name: str, x: Value, output: Value, rounding: onnx.NodeProto | None
) -> list[onnx.NodeProto]:
    """A layer of pixels that were rounded before, or were not."""
    product, nodes = f"{output}.product", []
    if rounding is not None and rounding.op_type == "DequantizeLinear":
        for op in ("QuantizeLinear", "DequantizeLinear"):
            rounded = f"{product}.{op}"
            nodes.append(helper.make_node(op, [x, *rounding.input[1:]], [rounded], rounded))
            x = rounded
    return [
        *nodes,
        helper.make_node("MatMul", [x, f"{name}.weight"], [product], name=product),
        helper.make_node("Add", [product, f"{name}.bias"], [output], name=output),
    ]


def _before(graph: Rewrite, tensor: Value) -> Value | None:
    """The map that a tensor's pixels came from."""
    places = {tensor}
    while len(places) == 1:
        (tensor,) = places
        maker = graph.made_by.get(tensor)
        if maker is None or maker.op_type not in _MOVES | _ROUNDS:
            return tensor
        places = set(maker.input if maker.op_type == "Concat" else maker.input[:1])
        if maker.op_type == "Concat":  # of two parts of one map
            cut = [graph.made_by.get(name) for name in places]
            places = {node.input[0] for node in cut if node is not None}
    return None


def _behind(graph: Rewrite, tensor: Value) -> Value | None:
    """The map that a tensor's pixels end up in."""
    while True:
        readers = graph.read_by.get(tensor, [])
        if not readers or any(node.op_type not in _MOVES for node in readers):
            return tensor
        after = {node.output[0] for node in readers}
        if len(after) > 1:  # two parts of one map, put together again
            joined = [node for name in after for node in graph.read_by.get(name, [])]
            after = {node.output[0] for node in joined}
        if len(after) != 1:
            return None
        (tensor,) = after


def _between(graph: Rewrite, entry: Value, result: Value) -> list[onnx.NodeProto]:
    """The nodes that make one tensor of another, in their order."""
    reached = {entry}
    for node in graph.nodes:
        if node.output[0] not in reached and reached.intersection(node.input):
            reached.update(node.output)
        if node.output[0] == result:
            break
    needed, found = {result}, []
    for node in reversed(graph.nodes):
        if needed.intersection(node.output) and reached.intersection(node.output):
            needed.update(set(node.input) & reached)
            if node.output[0] != entry:
                found.append(node)
            else:
                break
    return found[::-1]
