"""Which type each layer of a TensorRT network computes in."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

from m2f.engine import LayerCount

Layer = tuple[str, str, str]
"""Name, kind, and the type it computes in: ("conv1", "convolution", "fp16")."""

_SHORT = {
    "FLOAT": "fp32",
    "HALF": "fp16",
    "BF16": "bf16",
    "FP8": "fp8",
    "INT8": "int8",
    "INT32": "int32",
    "INT64": "int64",
    "UINT8": "uint8",
    "BOOL": "bool",
}
_PRODUCTS = {"CONVOLUTION", "DECONVOLUTION", "MATRIX_MULTIPLY", "EINSUM"}


def layers_of(trt: Any, network: Any) -> list[Layer]:
    """Every layer of a strongly typed network, in order.

    A product whose inputs all come out of dequantisation computes in what was dequantised:
    that is what TensorRT makes of it. Its neighbours may be fused with it, which only the
    finished engine's inspector shows, on the GPU.
    """
    layers = [network.get_layer(i) for i in range(network.num_layers)]
    quantised: dict[str, Any] = {}
    found = []
    for layer in layers:
        inputs = [t for i in range(layer.num_inputs) if (t := layer.get_input(i)) is not None]
        outputs = [layer.get_output(i) for i in range(layer.num_outputs)]
        kind = _name(layer.type)
        if kind == "DEQUANTIZE":
            quantised[outputs[0].name] = inputs[0].dtype
        elif kind == "SHUFFLE" and inputs[0].name in quantised:
            quantised[outputs[0].name] = quantised[inputs[0].name]
        types = [quantised.get(t.name) for t in inputs[:2]]
        if kind in _PRODUCTS and types and types[0] is not None and None not in types:
            dtype = types[0]
        else:
            dtype = outputs[0].dtype if outputs else None
        found.append((layer.name, kind.lower(), _short(dtype)))
    return found


def counts(layers: Iterable[Layer]) -> tuple[LayerCount, ...]:
    """How many layers of each kind and type, the most frequent first."""
    tally = Counter((kind, precision) for _, kind, precision in layers)
    return tuple(
        LayerCount(kind=kind, precision=precision, count=n)
        for (kind, precision), n in tally.most_common()
    )


def _name(member: Any) -> str:
    return str(member).rpartition(".")[2]


def _short(dtype: Any) -> str:
    name = _name(dtype)
    return _SHORT.get(name, name.lower())
