"""Products of 8-bit numbers with the bias that ONNX Runtime's own fusion leaves outside."""

from __future__ import annotations

from collections.abc import Iterator

import onnx
from onnx import helper

from m2f.export.fused.match import Match
from m2f.export.graph import Value
from m2f.export.rewrite import Rewrite

ORT_DOMAIN = "com.microsoft"
"""Of ONNX Runtime's own ops, which are there wherever it is."""


def integer_products(graph: Rewrite) -> Iterator[Match]:
    """Every product of two dequantised tensors, the second a weight, and a bias."""
    for product in graph.nodes:
        makers = [graph.made_by.get(name) for name in product.input]
        if product.op_type != "MatMul" or any(
            maker is None or maker.op_type != "DequantizeLinear" for maker in makers
        ):
            continue
        a, b = (list(maker.input) for maker in makers if maker is not None)
        addition = graph.only_reader(product.output[0])
        bias = _vector(graph, addition)
        if b[0] not in graph.arrays or addition is None or bias is None:
            continue
        flat = f"{bias}.flat"
        inputs = [name for pair in zip(a, b, strict=True) for name in pair]
        output = addition.output[0]
        node = helper.make_node(
            "MatMulIntegerToFloat", [*inputs, flat], [output], name=output, domain=ORT_DOMAIN
        )
        yield Match([node], [product, addition], {flat: graph.arrays[bias].reshape(-1)})


def _vector(graph: Rewrite, addition: onnx.NodeProto | None) -> Value | None:
    """What is added to every row alike."""
    if addition is None or addition.op_type != "Add":
        return None
    bias = graph.constant_input(addition)
    is_vector = bias is not None and graph.arrays[bias].shape[-1:] == (graph.arrays[bias].size,)
    return bias if is_vector else None
