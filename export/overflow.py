"""Will half hold it? Largest magnitudes, as recorded on images, against what half can hold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import ml_dtypes
import onnx

from m2f.bundle import Base
from m2f.export.graph import Value
from m2f.export.half import DTYPES, TYPES

HEADROOM = 4.0
"""How much larger a tensor may become on images that were not recorded."""


@dataclass(frozen=True, kw_only=True)
class Reach:
    """How large a tensor became.

    Attributes:
        tensor: Its name.
        layer: Name of the node that computes it.
        largest: Largest magnitude seen.
        share: Of what half can hold, with `HEADROOM`; above 1 the layer stays in float32.
    """

    tensor: str
    layer: str
    largest: float
    share: float


def limit_of(base: Base) -> float:
    """The largest magnitude that a recorded tensor may have."""
    info = ml_dtypes.finfo(DTYPES[TYPES[base]])  # type: ignore[no-untyped-call]
    return float(info.max) / HEADROOM


def reaches(
    model: onnx.ModelProto, largest: Mapping[Value, float], base: Base
) -> tuple[Reach, ...]:
    """Every recorded tensor against the limit, in the order they are computed."""
    limit = limit_of(base)
    return tuple(
        Reach(tensor=name, layer=node.name, largest=largest[name], share=largest[name] / limit)
        for node in model.graph.node
        for name in node.output
        if name in largest
    )


def wide_nodes(
    model: onnx.ModelProto, largest: Mapping[Value, float], base: Base
) -> tuple[str, ...]:
    """Nodes that must stay in float32: what gives or reads a tensor that half may not hold.

    Args:
        model: In float32.
        largest: Largest magnitude of tensors. One that is not named is taken to be no larger
            than what its node reads, which is so for everything that only moves numbers.
        base: "fp16" or "bf16".
    """
    limit, large = limit_of(base), set[Value]()
    made = {name for node in model.graph.node for name in node.output}
    for node in model.graph.node:
        reads = large.intersection(node.input)
        large.update(
            name
            for name in node.output
            if (largest[name] > limit if name in largest else bool(reads))
        )
    # A sum on its way to a recorded one is stored on its own, and may be as large.
    for node in reversed(model.graph.node):
        if node.op_type in ("Add", "Relu") and large.intersection(node.output):
            large.update(name for name in node.input if name in made and name not in largest)
    return tuple(
        node.name
        for node in model.graph.node
        if large.intersection([*node.input, *node.output])
    )
