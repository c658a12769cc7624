"""Whatever runs a network and can be timed: our bundles, the reference, other programs."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Protocol

import numpy as np

from m2f.bench.checks import Array, Outputs
from m2f.runtime.backend import Backend


class Contestant(Protocol):
    """One way to run a model's network."""

    name: str
    """For people."""

    precision: str
    """Of its products: "fp32", "bf16", "fp16", "int8" or "fp8"."""

    def bind(self, image: Array) -> Callable[[], Outputs]:
        """Gets ready for an image, uint8 [1, H, W, 3]; what it gives back is timed."""

    def close(self) -> None:
        """Frees the network."""


class Backed:
    """A backend of the runtime.

    Args:
        backend: Runs the network; closed with this.
        name: For people.
        precision: Of the file.
    """

    def __init__(self, backend: Backend, name: str, precision: str) -> None:
        self.backend, self.name, self.precision = backend, name, precision

    def bind(self, image: Array) -> Callable[[], Outputs]:
        """See `Contestant`."""
        size = np.array([image.shape[1:3]], np.int64)
        return functools.partial(self.backend.run, image, size)

    def close(self) -> None:
        """See `Contestant`."""
        self.backend.close()
