"""All memory of a GPU session, acquired before the first image and freed after the last.

A slot is what one batch in flight needs: every input and output on the device and, pinned,
on the host; scratch memory; a stream and an event. Batches in different slots overlap.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from m2f.runtime.device import Bytes, Device

Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorSpec:
    """One input or output of an engine, at its largest.

    Attributes:
        largest: Its largest shape.
    """

    name: str
    dtype: np.dtype[Any]
    largest: Shape

    @property
    def nbytes(self) -> int:
        """Of the largest shape."""
        return math.prod(self.largest) * self.dtype.itemsize


@dataclass(frozen=True, slots=True, eq=False)
class Tensor:
    """Room for one input or output, on the device and on the host.

    Attributes:
        pointer: Device address.
        staging: Pinned host memory.
    """

    spec: TensorSpec
    pointer: int
    staging: Bytes

    def bytes(self, shape: Shape) -> Bytes:
        """The part of the staging memory that a shape takes."""
        return self.staging[: math.prod(shape) * self.spec.dtype.itemsize]

    def array(self, shape: Shape) -> NDArray[Any]:
        """The same, as an array; no copy."""
        return self.bytes(shape).view(self.spec.dtype).reshape(shape)


class Slot:
    """What one batch in flight needs.

    Attributes:
        tensors: Every input and output, by name.
        scratch: Device memory for the layers.
        stream: All of it runs here, in order.
        done: Marks the end of the batch.
    """

    def __init__(
        self, device: Device, specs: tuple[TensorSpec, ...], *, scratch_bytes: int
    ) -> None:
        """Acquires all of it, or nothing.

        Raises:
            DeviceError: There is not enough memory.
        """
        with contextlib.ExitStack() as stack:
            self.stream = device.create_stream()
            stack.callback(device.destroy_stream, self.stream)
            self.done = device.create_event()
            stack.callback(device.destroy_event, self.done)
            self.scratch = 0
            if scratch_bytes:
                self.scratch = device.allocate(scratch_bytes)
                stack.callback(device.free, self.scratch)
            self.scratch_bytes = scratch_bytes
            tensors: dict[str, Tensor] = {}
            for spec in specs:
                pointer = device.allocate(max(1, spec.nbytes))
                stack.callback(device.free, pointer)
                staging = device.allocate_pinned(max(1, spec.nbytes))
                stack.callback(device.free_pinned, staging)
                tensors[spec.name] = Tensor(spec, pointer, staging)
            self.tensors: Mapping[str, Tensor] = tensors
            self._held = stack.pop_all()

    def close(self) -> None:
        """Frees all of it; the stream must be empty."""
        self._held.close()
