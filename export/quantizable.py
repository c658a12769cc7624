"""What of a graph can be quantised, and which tensors need a range for it.

A layer is named after its weight: `backbone.res2.0.conv1` is the convolution that multiplies
with `backbone.res2.0.conv1.weight`. Two kinds have no weight of their own: the residual side
of an addition, and what MSDeformAttn samples from.

Quantised are products of many activations with weights: the backbone, the feature pyramid,
the encoder's value and output projections and its feed-forward networks. Left in the base
type are the queries' decoder, whose products are small; whatever becomes sampling offsets,
their logits, or masks, where a small error is a different decision.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import onnx

from m2f.export.graph import Array, Value
from m2f.export.plan import Kind
from m2f.export.rewrite import Rewrite
from m2f.plugins import MS_DEFORM_ATTN

LayerKind = Literal["Conv", "MatMul", "Add", "MSDeformAttn"]

PARTS = ("backbone.", "pixel_decoder.", "transformer_decoder.scales.")
"""Where layers are quantised; `scales` are keys and values of the decoder's cross-attention."""

DECISIVE = (".attn.sampling", "pixel_decoder.mask_features")
"""Ends of names of layers that decide where to sample and where to look."""


@dataclass(frozen=True, kw_only=True)
class Layer:
    """Something that can be computed with 8-bit numbers.

    Attributes:
        name: Of the module.
        kind: What computes it; "Add" is the residual side of an addition.
        node: Name of that node.
        input: The activations [..., C] or [N, C, H, W] that would be quantised.
        weight: Name of its weight, None where there is none.
        axis: The weight's axis of output channels.
        output: Its result, after the bias, the residual addition and the ReLU that runtimes
            compute with it. Its range is needed by runtimes whose 8-bit convolutions give
            8-bit results.
        sum: A convolution's result before the residual addition; None without one.
    """

    name: str
    kind: LayerKind
    node: str
    input: Value
    weight: Value | None
    axis: int | None
    output: Value
    sum: Value | None = None

    @property
    def tensors(self) -> tuple[Value, ...]:
        """Tensors whose range quantising this layer may need."""
        if self.kind != "Conv":
            return (self.input,)
        return tuple(dict.fromkeys(t for t in (self.input, self.sum, self.output) if t))


def layers(
    model: onnx.ModelProto, arrays: Mapping[str, Array], kind: Kind = "int8"
) -> tuple[Layer, ...]:
    """Everything in a float32 network that can be quantised, in the order it runs.

    Args:
        model: As `m2f.export.network.onnx_from_weights` makes it, either form.
        arrays: Its weights by name.
        kind: Of the 8-bit numbers; MSDeformAttn takes no FP8.
    """
    found = _found(Rewrite(model.graph.node, arrays))
    return tuple(layer for layer in found if kind == "int8" or layer.kind != "MSDeformAttn")


def _found(graph: Rewrite) -> Iterator[Layer]:
    for node in graph.nodes:
        name = _layer_name(graph, node)
        if name is None:
            continue
        if node.op_type == "Conv":
            yield from _convolution(graph, node, name)
        elif node.op_type == "MatMul":
            yield Layer(
                name=name,
                kind="MatMul",
                node=node.name,
                input=node.input[0],
                weight=node.input[1],
                axis=1,
                output=node.output[0],
            )
        else:
            yield Layer(
                name=name,
                kind="MSDeformAttn",
                node=node.name,
                input=node.input[0],
                weight=None,
                axis=None,
                output=node.output[0],
            )


def _layer_name(graph: Rewrite, node: onnx.NodeProto) -> str | None:
    """The name of the layer that a node computes; None if it is not to be quantised."""
    if node.op_type == MS_DEFORM_ATTN.name and node.domain == MS_DEFORM_ATTN.domain:
        return node.name
    if node.op_type not in ("Conv", "MatMul") or node.input[1] not in graph.arrays:
        return None
    name = node.input[1].removesuffix(".weight")
    wanted = name.startswith(PARTS) and not name.endswith(DECISIVE)
    return name if wanted else None


def _convolution(graph: Rewrite, node: onnx.NodeProto, name: str) -> Iterator[Layer]:
    """A convolution; and, where it ends in a residual addition, that addition's other side."""
    before = output = node.output[0]
    after = graph.only_reader(output)
    residual = None
    if after is not None and after.op_type == "Add" and not graph.constant_input(after):
        # Of two convolutions that are added, the one written first holds the addition; what
        # the other gives is its residual side, and is quantised as such.
        (other,) = (x for x in after.input if x != before)
        made_by = graph.made_by.get(other)
        is_earlier = made_by is not None and graph.place[other] < graph.place[before]
        if not (made_by is not None and made_by.op_type == "Conv" and is_earlier):
            residual, output = other, after.output[0]
            after = graph.only_reader(output)
    if after is not None and after.op_type == "Relu":
        output = after.output[0]
    yield Layer(
        name=name,
        kind="Conv",
        node=node.name,
        input=node.input[0],
        weight=node.input[1],
        axis=0,
        output=output,
        sum=before if residual else None,
    )
    if residual:
        added = graph.only_reader(before)
        assert added is not None
        yield Layer(
            name=f"{name}.residual",
            kind="Add",
            node=added.name,
            input=residual,
            weight=None,
            axis=None,
            output=output,
        )
