"""Compares a file's tensors with a model's weights, and puts them together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from m2f.config import BackboneConfig, Convention, ModelConfig
from m2f.errors import CheckpointError
from m2f.models.checkpoint import names
from m2f.models.checkpoint.names import Place
from m2f.models.checkpoint.shapes import Shape
from m2f.models.checkpoint.stored import FLOATS, Array, Malformed, StoredTensor, shown

_LISTED = 20
"""Weights of each kind of problem that a message names; all are counted."""

_COPIES = 4
"""Weights may share storage, but not so much that a small file fills the memory."""


def our_shapes(
    tensors: Mapping[str, StoredTensor], format: Convention, kind: str
) -> dict[str, Shape]:
    """Shapes by our names; tensors without one are left out."""
    shapes: dict[str, Shape] = {}
    for theirs, tensor in tensors.items():
        found = names.our_name(theirs, format, kind)
        if found:
            name, parts = found
            rows = [n * parts for n in tensor.shape[:1]]
            shapes[name] = (*rows, *tensor.shape[1:])
    return shapes


def check(
    tensors: Mapping[str, StoredTensor], config: ModelConfig, format: Convention
) -> dict[str, Place]:
    """Checks that every weight is there, with its shape, and nothing else.

    Returns:
        `names.layout`.

    Raises:
        CheckpointError: Lists all that is missing, unexpected, or misshapen; the caller adds
            the file's name.
    """
    places = names.layout(config, format)
    missing = [f"{n} {list(p.shape)}" for n, p in places.items() if n not in tensors]
    unexpected = [
        f"{shown(n)} {list(t.shape)}"
        for n, t in tensors.items()
        if n not in places and not names.is_ignored(n)
    ]
    misshapen = [
        f"{n} {list(tensors[n].shape)} instead of {list(p.shape)}"
        for n, p in places.items()
        if n in tensors and tensors[n].shape != p.shape
    ]
    unusable = [
        f"{n} of {tensors[n].type}"
        for n in places
        if n in tensors and tensors[n].type not in FLOATS
    ]
    if missing or unexpected or misshapen or unusable:
        lists = (
            _listed("missing", missing)
            + _listed("unexpected", unexpected)
            + _listed("of another shape", misshapen)
            + _listed("not floating point", unusable)
        )
        raise CheckpointError(
            f"does not fit {describe(config)}: {len(missing)} weights missing, "
            f"{len(unexpected)} unexpected, {len(misshapen)} of another shape, "
            f"{len(unusable)} not floating point" + "".join(lists)
        )
    return places


def collect(
    tensors: dict[str, StoredTensor], places: Mapping[str, Place], *, file_bytes: int
) -> dict[str, Array]:
    """Moves the weights out, under our names and in our order.

    Args:
        tensors: By the file's names; taken out one by one, so that a pickle's bytes are
            freed on the way.
        places: As `check` gave them.
        file_bytes: Of all files together.

    Raises:
        CheckpointError: They claim far more memory than the file, or a tensor is corrupt.
    """
    claimed = sum(tensors[theirs].nbytes for theirs in places)
    if claimed > _COPIES * file_bytes + (1 << 20):
        raise CheckpointError(f"claims {claimed} bytes of weights in a file of {file_bytes}")
    groups: dict[str, list[tuple[Place, str]]] = {}
    for theirs, place in places.items():
        groups.setdefault(place.name, []).append((place, theirs))
    weights = {}
    for name, group in groups.items():
        ordered = [theirs for _, theirs in sorted(group, key=lambda item: item[0].part)]
        arrays = [_array(theirs, tensors.pop(theirs)) for theirs in ordered]
        value = arrays[0] if len(arrays) == 1 else np.concatenate(arrays)
        if group[0][0].is_reordered:
            value = names.reordered_from_mmdet(value)
        weights[name] = np.ascontiguousarray(value)
    return weights


def check_finite(weights: Mapping[str, Array]) -> None:
    """Refuses NaN and infinity.

    Raises:
        CheckpointError: Lists the weights that hold any.
    """
    bad = [
        f"{name} ({np.count_nonzero(~np.isfinite(w))} of {w.size})"
        for name, w in weights.items()
        if not np.isfinite(w).all()
    ]
    if bad:
        raise CheckpointError(
            f"{len(bad)} weights hold NaN or infinity, so every answer would be wrong; train "
            "again, or pass allow_nonfinite=True to look at it"
            + "".join(_listed("not finite", bad))
        )


def describe(config: ModelConfig) -> str:
    """A model in a few words, e.g. "Mask2Former R50, 133 classes, 100 queries"."""
    backbone: BackboneConfig = config.backbone
    queries = config.transformer_decoder.queries
    return f"Mask2Former {backbone.name}, {config.classes} classes, {queries} queries"


def _array(name: str, tensor: StoredTensor) -> Array:
    try:
        return tensor.array()
    except Malformed as problem:
        raise CheckpointError(f"{name} {problem}") from problem


def _listed(title: str, items: Iterable[str]) -> list[str]:
    items = list(items)
    lines = [f"\n  {title}: {item}" for item in items[:_LISTED]]
    if len(items) > _LISTED:
        lines.append(f"\n  {title}: ... and {len(items) - _LISTED} more")
    return lines
