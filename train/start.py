"""What finetuning starts from, and its class head made anew for other classes."""

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from m2f.config import Category, Metadata, ModelConfig
from m2f.models import presets
from m2f.models.checkpoint import read
from m2f.models.checkpoint.stored import Array
from m2f.train import sample

_HEAD = "transformer_decoder.class_embed"

SAMPLE = "sample"
"""Name of the sample model among those to start afresh."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Start:
    """A model to train further.

    Attributes:
        name: For people.
        identity: Changes with the weights.
        weights: By our names; None: fresh ones.
        notes: What was assumed about it.
    """

    name: str
    identity: str
    config: ModelConfig
    metadata: Metadata
    weights: Mapping[str, Array] | None
    notes: tuple[str, ...] = ()


class ClassChange(NamedTuple):
    """What becomes of the classes of a model.

    Attributes:
        kept: Names that model and data share; their weights stay.
        new: The data's other names; their weights start at random.
        dropped: The model's other names.
    """

    kept: tuple[str, ...]
    new: tuple[str, ...]
    dropped: tuple[str, ...]


def start_from(source: str | Path, *, preset: str | None = None) -> Start:
    """Reads a checkpoint; see `m2f.models.checkpoint.read`."""
    checkpoint = read(source, preset=preset)
    return Start(
        name=str(source),
        identity=checkpoint.sha256,
        config=checkpoint.config,
        metadata=checkpoint.metadata,
        weights=checkpoint.weights,
        notes=checkpoint.notes,
    )


def start_afresh(name: str) -> Start:
    """A model without training.

    Args:
        name: A preset's, or "sample".

    Raises:
        UsageError: There is none of this name.
    """
    if name == SAMPLE:
        config, metadata = sample.CONFIG, sample.METADATA
    else:
        config, metadata = presets.preset(name).model, presets.preset(name).metadata
    identity = hashlib.sha256(repr(config).encode()).hexdigest()
    return Start(name=name, identity=identity, config=config, metadata=metadata, weights=None)


def with_classes(
    start: Start, categories: Sequence[Category], *, seed: int
) -> tuple[ModelConfig, Mapping[str, Array] | None, ClassChange]:
    """Gives a model a data set's classes.

    Args:
        start: The model.
        categories: Its new classes, in order.
        seed: Of the weights of new ones.

    Returns:
        Its configuration, its weights, and what has become of its classes.
    """
    config = dataclasses.replace(start.config, classes=len(categories))
    new = [_plain(category.name) for category in categories]
    if start.weights is None:
        return config, None, ClassChange((), tuple(c.name for c in categories), ())
    rows = {_plain(c.name): i for i, c in reversed([*enumerate(start.metadata.categories)])}
    change = ClassChange(
        kept=tuple(c.name for c in categories if _plain(c.name) in rows),
        new=tuple(c.name for c in categories if _plain(c.name) not in rows),
        dropped=tuple(c.name for c in start.metadata.categories if _plain(c.name) not in new),
    )
    source = [*(rows.get(name, -1) for name in new), start.config.classes]  # last: no object
    rng = np.random.default_rng([seed, 2])
    bound = start.config.transformer_decoder.channels**-0.5  # as nn.Linear begins
    weights = dict(start.weights)
    for name in (f"{_HEAD}.weight", f"{_HEAD}.bias"):
        weights[name] = _rows(weights[name], source, rng, bound)
    return config, weights, change


def _rows(old: Array, source: list[int], rng: np.random.Generator, bound: float) -> Array:
    out: NDArray[Any] = rng.uniform(-bound, bound, (len(source), *old.shape[1:]))
    known = np.array(source) >= 0
    out[known] = old[np.array(source)[known]]
    return out.astype(old.dtype)


def _plain(name: str) -> str:
    """Names of classes agree whatever their case, as in `m2f.evaluate.mapping`."""
    return " ".join(name.casefold().replace("_", " ").split())
