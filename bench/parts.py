"""Which part of the network a node belongs to, and what kind of work it is.

The exporter names a module's output after the module, and numbers what lies in between
(``pixel_decoder.MatMul.3``). A named node belongs to its module's part, an activation to the
part whose result it takes, and any other to the part it feeds. So the same rule serves graphs
that a runtime has rewritten: of the nodes it fuses, some name survives.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Literal, cast, get_args

import onnx

INPUT = "input"
BACKBONE = "backbone"
ENCODER = "encoder layers"
PYRAMID = "FPN"
MASK_FEATURES = "mask features"
DECODER = "decoder layers"
HEADS = "heads"
PARTS = (
    INPUT,
    BACKBONE,
    "input projections",
    ENCODER,
    PYRAMID,
    MASK_FEATURES,
    DECODER,
    HEADS,
)
"""In the network's order. "input": normalisation and padding; "encoder layers": the pixel
decoder's, with deformable attention; "heads": class and mask embeddings, attention masks and
the final masks."""

_NAMES = tuple(
    (re.compile(pattern), part)
    for pattern, part in (
        (r"backbone\.", BACKBONE),
        (r"pixel_decoder\.input_proj\.", "input projections"),
        (r"pixel_decoder\.(layers\.|scales)", ENCODER),
        (r"pixel_decoder\.(lateral|output)", PYRAMID),
        (r"pixel_decoder\.mask_features", MASK_FEATURES),
        (r"transformer_decoder\.layers\.\d+\.attention_logits", HEADS),
        (r"transformer_decoder\.(norm|mask_embed|class_embed)", HEADS),
        (r"transformer_decoder\.(layers|scales)\.", DECODER),
        (r"(class|mask)_logits$", HEADS),
    )
)
_ACTIVATIONS = {"Relu", "Gelu", "Erf", "Sigmoid"}

Kind = Literal[
    "convolution",
    "matrix product",
    "MSDeformAttn",
    "MaskedAttention",
    "WindowAttention",
    "other",
]
KINDS: tuple[Kind, ...] = get_args(Kind)


def kind_of(op: str) -> Kind:
    """The kind of work an op does, a runtime's fused ones included.

    Args:
        op: Its type: ONNX's, ours, or ONNX Runtime's (FusedConv, MatMulAddFusion, ...).
    """
    if op in ("MSDeformAttn", "MaskedAttention", "WindowAttention"):
        return cast(Kind, op)
    if "Conv" in op:
        return "convolution"
    is_product = op == "Linear" or "MatMul" in op or "Gemm" in op
    return "matrix product" if is_product else "other"


def parts_of(nodes: Sequence[onnx.NodeProto]) -> list[str]:
    """The part of each node.

    Args:
        nodes: Of one graph, in an order in which it can run.
    """
    consumers: dict[str, list[int]] = {}
    producers: dict[str, int] = {}
    for i, node in enumerate(nodes):
        producers |= dict.fromkeys(node.output, i)
        for name in filter(None, node.input):
            consumers.setdefault(name, []).append(i)
    parts: list[str | None] = [_named(node) for node in nodes]
    for i, node in enumerate(nodes):
        if parts[i] is None and _is_outside(node) and not _fed_by_part(node, producers, parts):
            parts[i] = INPUT
    for i in range(len(nodes) - 1, -1, -1):
        if parts[i] is None and nodes[i].op_type not in _ACTIVATIONS:
            parts[i] = _of_consumers(nodes[i], consumers, parts)
    for i, node in enumerate(nodes):
        if parts[i] is None:
            made = [parts[producers[name]] for name in node.input if name in producers]
            parts[i] = next(filter(None, made), INPUT)
    return [part or INPUT for part in parts]


def _named(node: onnx.NodeProto) -> str | None:
    """The part that a node's name or output's name says; None for numbered ones."""
    for name in (_stem(node.name), node.output[0]):
        *_, kind, number = f".{name}".rsplit(".", 2)
        is_numbered = number.isdecimal() and kind[:1].isupper()
        if is_numbered and not name.startswith("backbone."):
            continue
        for pattern, part in _NAMES:
            if pattern.match(name):
                return part
    return None


def _stem(name: str) -> str:
    """A node's name without what ONNX Runtime appends when it rewrites the node."""
    return name.partition("/")[0].removesuffix("_nchwc")


def _is_outside(node: onnx.NodeProto) -> bool:
    """Whether a node lies in none of the network's modules."""
    names = (_stem(node.name), node.output[0])
    inside = ("backbone.", "pixel_decoder.", "transformer_decoder.")
    return not any(name.startswith(inside) for name in names)


def _fed_by_part(
    node: onnx.NodeProto, producers: Mapping[str, int], parts: Sequence[str | None]
) -> bool:
    """Whether any input comes from a node that is not part of the input's preparation."""
    makers = (producers[name] for name in node.input if name in producers)
    return any(parts[maker] != INPUT for maker in makers)


def _of_consumers(
    node: onnx.NodeProto, consumers: Mapping[str, list[int]], parts: Sequence[str | None]
) -> str | None:
    """The part that uses a node's results; of several, the earliest in the network."""
    used = {parts[i] for name in node.output for i in consumers.get(name, ())} - {None}
    modules = {name.partition(".")[0] for name in (node.name, node.output[0])}
    same = [part for part in PARTS if part in used and _module(part) in modules]
    return same[0] if same else next((p for p in PARTS if p in used), None)


def _module(part: str) -> str:
    """The network's module that a part lies in."""
    if part in (INPUT, BACKBONE):
        return part
    return "transformer_decoder" if part in (DECODER, HEADS) else "pixel_decoder"
