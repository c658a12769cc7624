"""Weights made from names and shapes alone, for any model, as every format stores them."""

import functools

import numpy as np

from m2f.models.checkpoint.names import layout
from tests.synth_weights import synth


@functools.lru_cache(maxsize=2)
def synthetic(config, format="official"):
    """Weights by our names, made by the goldens' rule from the names of a file format."""
    parts = {}
    for theirs, place in layout(config, format).items():
        parts.setdefault(place.name, []).append((place.part, theirs, place.shape))
    return {
        name: np.concatenate([synth(theirs, shape) for _, theirs, shape in sorted(pieces)])
        for name, pieces in parts.items()
    }
