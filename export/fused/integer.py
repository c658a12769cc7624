"""Products of 8-bit numbers with the bias that ONNX Runtime's own fusion leaves outside."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx
from onnx import helper

from m2f.export.fused.match import Match
from m2f.export.graph import Array
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
        bias = None if addition is None else _bias(graph, product, addition)
        if b[0] not in graph.arrays or addition is None or bias is None:
            continue
        output = addition.output[0]
        flat = f"{output}.bias.flat"
        inputs = [name for pair in zip(a, b, strict=True) for name in pair]
        node = helper.make_node(
            "MatMulIntegerToFloat", [*inputs, flat], [output], name=output, domain=ORT_DOMAIN
        )
        yield Match([node], [product, addition], {flat: bias})


def _bias(graph: Rewrite, product: onnx.NodeProto, addition: onnx.NodeProto) -> Array | None:
    """What is added to every row of a product alike, if known; some are 32-bit numbers."""
    if addition.op_type != "Add":
        return None
    (name,) = (name for name in addition.input if name != product.output[0])
    maker = graph.made_by.get(name)
    if maker is not None and maker.op_type == "DequantizeLinear":
        stored = [graph.arrays.get(part) for part in maker.input]
        if any(array is None for array in stored):
            return None
        number, scale, zero = (np.asarray(array, np.float64) for array in stored)
        bias = ((number - zero) * scale).astype(np.float32)
    elif name in graph.arrays:
        bias = graph.arrays[name]
    else:
        return None
    return bias.reshape(-1) if bias.shape[-1:] == (bias.size,) else None
