"""Arrays on a GPU, passed between libraries without copies.

Two ways exist: `__cuda_array_interface__` (CuPy, Numba, pycuda, PyTorch) and DLPack (all of
these, TensorFlow and JAX). Both are plain data, so no library is needed for either.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from m2f.errors import ImageError
from m2f.runtime.device import DLPACK_CUDA

Shape = tuple[int, ...]


class _DlDevice(ctypes.Structure):
    _fields_ = (("type", ctypes.c_int32), ("index", ctypes.c_int32))


class _DlType(ctypes.Structure):
    _fields_ = (("code", ctypes.c_uint8), ("bits", ctypes.c_uint8), ("lanes", ctypes.c_uint16))


class _DlTensor(ctypes.Structure):
    """dlpack.h, DLTensor."""

    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device", _DlDevice),
        ("ndim", ctypes.c_int32),
        ("dtype", _DlType),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    )


class _DlManaged(ctypes.Structure):
    """dlpack.h, DLManagedTensor."""


_Deleter = ctypes.CFUNCTYPE(None, ctypes.POINTER(_DlManaged))
_DlManaged._fields_ = (
    ("tensor", _DlTensor),
    ("context", ctypes.c_void_p),
    ("deleter", _Deleter),
)

_CODES = {"i": 0, "u": 1, "f": 2}
"""dlpack.h, DLDataTypeCode, by NumPy's kind."""

_NAME, _USED = b"dltensor", b"used_dltensor"

# Capsules go by address: ctypes would count references to one that is just being freed.
_CAPSULE = {
    name: ctypes.PYFUNCTYPE(result, *arguments)((f"PyCapsule_{name}", ctypes.pythonapi))
    for name, result, *arguments in (
        ("New", ctypes.py_object, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p),
        ("GetPointer", ctypes.c_void_p, ctypes.c_void_p, ctypes.c_char_p),
        ("IsValid", ctypes.c_int, ctypes.c_void_p, ctypes.c_char_p),
        ("SetName", ctypes.c_int, ctypes.c_void_p, ctypes.c_char_p),
    )
}

_lent: dict[int, tuple[Any, ...]] = {}
"""What exported tensors point to, by address of their struct, until their users are done."""


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class DeviceArray:
    """An array on a GPU, C order, that belongs to somebody else.

    Attributes:
        pointer: Device address.
        device: DLPack's device type and number.
        stream: On which it becomes valid.
        ready: Makes another stream wait until it is; None if it is already.
        lend: Called when somebody takes it by DLPack; gives what to call when they are done.
        owner: Kept alive as long as this is.
    """

    pointer: int
    shape: Shape
    dtype: np.dtype[Any]
    device: tuple[int, int]
    stream: int = 0
    ready: Callable[[int], None] | None = None
    lend: Callable[[], Callable[[], None]] | None = None
    owner: Any = None

    @property
    def nbytes(self) -> int:
        """Its size."""
        return math.prod(self.shape) * self.dtype.itemsize

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        """Version 3: whoever reads it waits for the stream."""
        return {
            "shape": self.shape,
            "typestr": self.dtype.str,
            "data": (self.pointer, False),
            "strides": None,
            "stream": self.stream or None,
            "version": 3,
        }

    def __dlpack_device__(self) -> tuple[int, int]:
        """DLPack's device type and number."""
        return self.device

    def __dlpack__(self, *, stream: int | None = None, **_newer: Any) -> Any:
        """A capsule of version 0, which every library takes.

        Args:
            stream: The consumer's, which is made to wait; -1 asks for no such thing, and
                None and 1 both mean CUDA's default stream (DLPack's Python specification).
        """
        if self.ready is not None and stream != -1:
            self.ready(0 if stream in (None, 1) else int(stream or 0))
        done = self.lend() if self.lend is not None else None
        managed = _DlManaged()
        sizes = (ctypes.c_int64 * len(self.shape))(*self.shape)
        managed.tensor.data = self.pointer
        managed.tensor.device = _DlDevice(*self.device)
        managed.tensor.ndim = len(self.shape)
        kind = _DlType(_CODES[self.dtype.kind], 8 * self.dtype.itemsize, 1)
        managed.tensor.dtype = kind
        managed.tensor.shape = ctypes.cast(sizes, ctypes.POINTER(ctypes.c_int64))
        managed.deleter = _return
        address = ctypes.addressof(managed)
        _lent[address] = (managed, sizes, done, self)
        return _CAPSULE["New"](address, _NAME, ctypes.cast(_abandon, ctypes.c_void_p))


def _give_back(managed: Any) -> None:
    """A consumer is done with a tensor."""
    *_, done, _owner = _lent.pop(ctypes.addressof(managed.contents))
    if done is not None:
        done()


_return = _Deleter(_give_back)


def _drop(capsule: int) -> None:
    """A capsule goes, perhaps one that nobody took."""
    if _CAPSULE["IsValid"](capsule, _NAME):
        pointer = _CAPSULE["GetPointer"](capsule, _NAME)
        _give_back(ctypes.cast(pointer, ctypes.POINTER(_DlManaged)))


_abandon = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(_drop)


def is_device_array(value: Any) -> bool:
    """Whether something is an array that may lie on a GPU."""
    return hasattr(value, "__cuda_array_interface__") or (
        hasattr(value, "__dlpack_device__") and not isinstance(value, np.ndarray)
    )


def device_array(value: Any, device: tuple[int, int], stream: int) -> DeviceArray:
    """Reads another library's array, without copying it.

    Args:
        value: With `__dlpack__` or `__cuda_array_interface__`.
        device: Where it must be, DLPack's type and number.
        stream: Ours. What the other library still does to the array will be done before
            what we put there next.

    Raises:
        ImageError: It is elsewhere, or not in C order.
    """
    if hasattr(value, "__dlpack__"):
        found = _from_dlpack(value, device, stream)
    else:
        found = _from_interface(value, device)
    return found


def _from_interface(value: Any, device: tuple[int, int]) -> DeviceArray:
    raw = value.__cuda_array_interface__
    dtype, shape = np.dtype(raw["typestr"]), tuple(raw["shape"])
    _check_order(shape, raw.get("strides"), dtype.itemsize)
    pointer = int(raw["data"][0])
    producer = int(raw.get("stream") or 0)
    return DeviceArray(
        pointer=pointer, shape=shape, dtype=dtype, device=device, stream=producer, owner=value
    )


def _from_dlpack(value: Any, device: tuple[int, int], stream: int) -> DeviceArray:
    place = tuple(map(int, value.__dlpack_device__()))
    if place != device:
        raise ImageError(
            f"the array is on DLPack device {place}, the engine on {device}; move it there"
        )
    # Streams are CUDA's; the protocol wants none for memory of the host.
    capsule = value.__dlpack__(stream=stream if device[0] == DLPACK_CUDA else None)
    pointer = _CAPSULE["GetPointer"](id(capsule), _NAME)
    managed = ctypes.cast(pointer, ctypes.POINTER(_DlManaged))
    tensor = managed.contents.tensor
    shape = tuple(tensor.shape[i] for i in range(tensor.ndim))
    kinds = {code: kind for kind, code in _CODES.items()}
    dtype = np.dtype(f"{kinds.get(tensor.dtype.code, 'V')}{tensor.dtype.bits // 8}")
    strides = None
    if tensor.strides:
        strides = tuple(tensor.strides[i] for i in range(tensor.ndim))
    _CAPSULE["SetName"](id(capsule), _USED)  # it is ours to give back now
    owner = _Borrowed(managed, capsule)
    _check_order(shape, strides, 1)
    return DeviceArray(
        pointer=int(tensor.data or 0) + tensor.byte_offset,
        shape=shape,
        dtype=dtype,
        device=device,
        owner=owner,
    )


class _Borrowed:
    """Gives a DLPack tensor back when it goes."""

    def __init__(self, managed: Any, capsule: Any) -> None:
        self.managed, self.capsule = managed, capsule

    def __del__(self) -> None:
        if self.managed.contents.deleter:
            self.managed.contents.deleter(self.managed)


def _check_order(shape: Shape, strides: Any, step: int) -> None:
    """Refuses all but C order; an element is ``step`` of the strides' units."""
    if strides is None:
        return
    for size, stride in zip(reversed(shape), reversed(strides), strict=True):
        if size > 1 and stride != step:
            raise ImageError(
                f"the array of shape {list(shape)} has strides {list(strides)}, not C order; "
                "make it contiguous first"
            )
        step *= size
