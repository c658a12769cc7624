"""Pre-processing where the network runs: images go up as they were decoded.

`Resizer` does on a GPU what `m2f.runtime.preprocess.assemble` does on the host, byte for byte:
the images of a batch and the weights of their resizing go up through pinned memory in one copy,
and kernels put each into its place in the network's input, on the slot's stream and before the
network.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Sequence
from ctypes import c_int32, c_int64, c_void_p
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from m2f.runtime import native
from m2f.runtime.buffers import Shape, Slot, Tensor, TensorSpec
from m2f.runtime.device import Device
from m2f.runtime.native_cuda import Kernels
from m2f.runtime.preprocess import Prepared, Size

DECODED = "decoded"

ROOM_BYTES = 3 * 3840 * 2160
"""Of the decoded images of a batch: one of 4K, or four of 1080p. More where the network's input
is larger than that."""

LARGEST_SIDE = 8192
"""Pixels of a side of a decoded image. More where the network's input is larger than that."""

_ALIGNMENT = 4
_Pair = c_int64 * 2


class DeviceSize(ctypes.Structure):
    """Of ``plugins/images/cuda.h``."""

    _fields_ = (("image", _Pair), ("resized", _Pair), ("padded", _Pair), ("stride", _Pair))

    @classmethod
    def of(cls, image: Size, resized: Size, padded: Size, stride: Size) -> DeviceSize:
        """Each height, then width."""
        return cls(*(_Pair(*sides) for sides in (image, resized, padded, stride)))


class Resizer:
    """Fills the network's input from decoded images.

    Attributes:
        room: What a slot needs for it.
    """

    def __init__(self, found: Kernels, device: Device, image: TensorSpec) -> None:
        """For one engine.

        Args:
            found: What runs.
            device: Where.
            image: The network's input, uint8 [N, H, W, 3].
        """
        self._kernels, self._device, self._input = found, device, image.name
        self._library = native.Library(found.path, threads=1)
        n, height, width, _ = image.largest
        self._largest_side = max(LARGEST_SIDE, height, width)
        self._pixel_bytes = max(ROOM_BYTES, image.nbytes)
        # An element of a table has two places and at most 2 * (source / target) + 3 weights.
        tables = 4 * n * (4 * self._largest_side + 5 * (height + width))
        room = self._pixel_bytes + n * _ALIGNMENT + tables
        self.room = TensorSpec(name=DECODED, dtype=np.dtype(np.uint8), largest=(room,))

    def enqueue(self, slot: Slot, images: Sequence[Prepared], padded: Size) -> bool:
        """Puts a batch on the slot's stream, copies and kernels, and returns at once.

        Args:
            slot: Has `room`, and nothing on its stream.
            images: Of the batch; one that is repeated goes up once.
            padded: Height and width of the batch.

        Returns:
            Whether it did. If not, because images are larger than the room or the GPU has no
            such kernels, the host must.

        Raises:
            DeviceError: The GPU failed.
        """
        if not self._fits(images):
            return False
        stack = _Stack(slot.tensors[DECODED])
        jobs: list[_Job] = []
        for i, image in enumerate(images):
            is_repeated = i > 0 and image is images[i - 1]
            jobs.append(jobs[-1] if is_repeated else self._staged(image, stack))
        stack.upload(self._device, slot.stream)
        first, step = slot.tensors[self._input].pointer, 3 * math.prod(padded)
        return all(
            self._launch(job, padded, first + i * step, slot.stream)
            for i, job in enumerate(jobs)
        )

    def _fits(self, images: Sequence[Prepared]) -> bool:
        once = {id(image): image for image in images}.values()
        return (
            sum(image.image.nbytes for image in once) <= self._pixel_bytes
            and max(max(image.original) for image in once) <= self._largest_side
        )

    def _staged(self, image: Prepared, stack: _Stack) -> _Job:
        staging, pointer = stack.push(image.image.shape, np.uint8)
        np.copyto(staging, image.image)
        if not image.antialias:
            return _Job(image, pointer, (), (0, 0))
        places, strides = [], []
        for source, target in zip(image.original, image.size, strict=True):
            stride = self._library.resize_stride(source, target)
            table, place = stack.push((target, 2 + stride), np.int32)
            self._library.resize_table(source, target, table)
            places.append(place)
            strides.append(stride)
        return _Job(image, pointer, tuple(places), (strides[0], strides[1]))

    def _launch(self, job: _Job, padded: Size, to: int, stream: int) -> bool:
        image = job.image
        size = DeviceSize.of(image.original, image.size, padded, job.strides)
        given: list[Any] = [ctypes.byref(size), c_void_p(job.pixels)]
        name = "resize_nearest"
        if job.tables:
            name = "resize"
            given += [*map(c_void_p, job.tables), c_int32(image.rows_first)]
        return self._kernels.launch(self._device, name, *given, c_void_p(to), stream=stream)


@dataclass(frozen=True, slots=True)
class _Job:
    """One image, and where on the device it and its weights will be.

    Attributes:
        tables: Of rows and of columns; none where it is not antialiased.
        strides: Most weights of an element of either.
    """

    image: Prepared
    pixels: int
    tables: tuple[int, ...]
    strides: Size


class _Stack:
    """Arrays one behind the other in a tensor's memory, which go up together."""

    def __init__(self, tensor: Tensor) -> None:
        self._tensor, self._end = tensor, 0

    def push(self, shape: Shape, dtype: type[np.generic]) -> tuple[NDArray[Any], int]:
        """One more: where it is staged, and its address on the device."""
        begin = self._end + -self._end % _ALIGNMENT
        self._end = begin + math.prod(shape) * np.dtype(dtype).itemsize
        staging = self._tensor.staging[begin : self._end].view(dtype).reshape(shape)
        return staging, self._tensor.pointer + begin

    def upload(self, device: Device, stream: int) -> None:
        """All of them in one copy."""
        device.upload(self._tensor.pointer, self._tensor.staging[: self._end], stream)
