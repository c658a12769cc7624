"""The golden fixtures: what the official implementations compute (see golden/README.md)."""

import functools
import json
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parent / "golden"


@functools.lru_cache(maxsize=8)
def load(fixture, name):
    """One file of a fixture: arrays by name, or parsed JSON."""
    path = ROOT / fixture / name
    if path.suffix == ".json":
        return json.loads(path.read_text(encoding="utf-8"))
    with np.load(path) as archive:
        return dict(archive)


def unpack_mask(golden, layer, shape):
    """Attention mask of one decoder layer, bool, True where masked."""
    bits = np.unpackbits(golden[f"attn_mask_{layer}"])[: int(np.prod(shape))]
    return bits.reshape(shape).astype(bool)
