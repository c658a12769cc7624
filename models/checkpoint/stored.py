"""Tensors as a file describes them, before any memory is spent on their values.

Every container (pickle, torch zip, torch legacy, safetensors) is read into these, so that
shapes can be compared with a model's first, and only what a model needs is ever copied.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Bytes = bytes | bytearray | memoryview

TYPES: dict[str, np.dtype[Any]] = {
    "float64": np.dtype("f8"),
    "float32": np.dtype("f4"),
    "float16": np.dtype("f2"),
    "bfloat16": np.dtype("u2"),  # NumPy has none: the upper half of a float32
    "int64": np.dtype("i8"),
    "int32": np.dtype("i4"),
    "int16": np.dtype("i2"),
    "int8": np.dtype("i1"),
    "uint8": np.dtype("u1"),
    "bool": np.dtype("?"),
}
"""Element types that can be read, and what NumPy stores them as."""

FLOATS = frozenset({"float64", "float32", "float16", "bfloat16"})


class Malformed(Exception):
    """Bytes that are not what their format says; whoever knows the file adds its name."""


class Storage:
    """A run of bytes that tensors look into.

    Args:
        load: Gives the bytes; called once, when they are first needed.
        order: Of multi-byte elements.
    """

    def __init__(self, load: Callable[[], Bytes], order: Literal["<", ">"] = "<") -> None:
        self.order = order
        self._load = load
        self._data: Bytes | None = None

    @property
    def data(self) -> Bytes:
        """The bytes."""
        if self._data is None:
            self._data = self._load()
        return self._data

    @data.setter
    def data(self, value: Bytes) -> None:
        self._data = value


@dataclass(slots=True)
class StoredTensor:
    """One tensor inside a storage; nothing is trusted before `array` has checked it.

    Attributes:
        storage: None while its pickle has not described it fully.
        type: A key of `TYPES`, or the name of a type that cannot be read.
        offset: Elements before the first.
        strides: Elements.
    """

    storage: Storage | None = None
    type: str = "nothing"
    offset: int = 0
    shape: tuple[int, ...] = ()
    strides: tuple[int, ...] = ()

    @property
    def size(self) -> int:
        """Number of elements, as claimed."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of the elements, as claimed."""
        dtype = TYPES.get(self.type)
        return self.size * (dtype.itemsize if dtype else 1)

    def array(self) -> Array:
        """Copies the values out.

        Returns:
            A C-contiguous array in the machine's byte order; float16 and bfloat16 widened
            to float32, which loses nothing; other types as they are.

        Raises:
            Malformed: The type cannot be read, or the elements are not all in the storage.
        """
        dtype = TYPES.get(self.type)
        if self.storage is None or dtype is None:
            raise Malformed(f"is made of {self.type}, which is no weight")
        if self.size == 0:
            raise Malformed("holds no elements")
        self._check(len(self.storage.data) // dtype.itemsize)
        # A stride along an axis of one element means nothing, so it may be any number.
        steps = [s if n > 1 else 0 for n, s in zip(self.shape, self.strides, strict=True)]
        last = self.offset + _reach(self.shape, steps)
        flat = np.frombuffer(
            self.storage.data,
            dtype.newbyteorder(self.storage.order),
            count=last - self.offset + 1,
            offset=self.offset * dtype.itemsize,
        )
        view = np.lib.stride_tricks.as_strided(
            flat, self.shape, [s * dtype.itemsize for s in steps]
        )
        if self.type == "bfloat16":
            bits: Array = view.astype(np.uint32, order="C") << np.uint32(16)
            return bits.view(np.float32)
        wide = np.dtype(np.float32) if self.type == "float16" else dtype
        return view.astype(wide, order="C", copy=True)

    def _check(self, available: int) -> None:
        if len(self.shape) != len(self.strides):
            raise Malformed(f"has {len(self.shape)} axes and {len(self.strides)} strides")
        needed = max(self.size, self.offset + _reach(self.shape, self.strides) + 1)
        if needed > available:
            raise Malformed(f"needs {needed} elements, the file holds {available} for it")


def shown(text: object, width: int = 100) -> str:
    """Text from a file as it may be printed: cut, and without control characters."""
    return ascii(str(text)[:width])[1:-1]


def sizes(value: Any) -> tuple[int, ...]:
    """Checks numbers from a file that are to be a shape, strides or an offset.

    Raises:
        Malformed: They are not a few integers from 0 to 2**40.
    """
    if not isinstance(value, (tuple, list)) or len(value) > 32:
        raise Malformed("is corrupt: a tensor's shape is no short list of numbers")
    if any(type(n) is not int or not 0 <= n <= 1 << 40 for n in value):
        raise Malformed("is corrupt: a tensor's shape has a size that no tensor can have")
    return tuple(value)


def contiguous(shape: Sequence[int], *, fortran: bool = False) -> tuple[int, ...]:
    """Strides, in elements, of a dense array."""
    sizes = list(shape) if fortran else list(reversed(shape))
    strides = [math.prod(sizes[:i]) for i in range(len(sizes))]
    return tuple(strides if fortran else reversed(strides))


def _reach(shape: Sequence[int], strides: Sequence[int]) -> int:
    """Elements from the first to the last."""
    return sum((n - 1) * s for n, s in zip(shape, strides, strict=True) if n > 1)
