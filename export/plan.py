"""What precision a network is to have: which numbers are half, which are 8 bits wide.

TensorRT builds what the file says (since version 11 it takes nothing else), so precision is
written into the ONNX file: a pass over the float32 graph that turns tensors, and the weights
beside them, into other types.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from m2f.bundle import Base
from m2f.export.graph import Array, Value

Kind = Literal["int8", "fp8"]
Target = Literal["tensorrt", "onnxruntime"]

LARGEST: Mapping[Kind, float] = {"int8": 127.0, "fp8": 448.0}
"""Largest magnitude that an 8-bit number stands for, before its scale: -128 is not used, as
ranges are symmetric; E4M3's largest finite number (Micikevicius et al., 2022, section 3)."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What precision a network is to have.

    Attributes:
        base: Type of all that is not said otherwise; half types leave what needs it in
            float32 (see `m2f.export.half`).
        wide: Layers, by the name of their node or weight, that stay in float32.
        kind: Type of the quantised layers.
        layers: Names of the quantised layers; see `m2f.export.quantizable.layers`.
        scales: Step of each tensor's 8-bit numbers: its largest magnitude over `LARGEST`, for
            every tensor that the quantised layers name.
        weights: Step of each output channel of a layer's weight; where a layer is missing,
            its largest magnitude decides.
        target: Who is to run it. Both take the same numbers, but fuse different patterns:
            TensorRT wants int8 inputs, and the residual addition before the next rounding;
            ONNX Runtime's CPU kernels want 8-bit results too, and unsigned ones after ReLU.
    """

    base: Base = "fp32"
    wide: frozenset[str] = frozenset()
    kind: Kind = "int8"
    layers: frozenset[str] = frozenset()
    scales: Mapping[Value, float] = field(default_factory=dict)
    weights: Mapping[str, Array] = field(default_factory=dict)
    target: Target = "tensorrt"
