"""The native library through its C API: every kernel this machine can run, and plain loops."""

import ctypes
import dataclasses

import numpy as np
import pytest

from m2f.plugins import library

STORAGE = {"float32": 0, "float16": 1, "bfloat16": 2, "int8": 3, "uint8": 4}
MESSAGE_BYTES = 256
PATH = library.find()

needs_library = pytest.mark.skipif(PATH is None, reason="m2f has no native library here")


def stored(array, storage):
    """As the library takes it: bfloat16 as its bits."""
    if storage == "bfloat16":
        bits = np.ascontiguousarray(array, np.float32).view(np.uint32)
        return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)
    return np.ascontiguousarray(array, storage)


def loaded(array, storage):
    """The float64 values of a stored array."""
    if storage == "bfloat16":
        return (array.astype(np.uint32) << 16).view(np.float32).astype(np.float64)
    return array.astype(np.float64)


@dataclasses.dataclass(frozen=True)
class Kernels:
    """One set of kernels; ``index`` -1 are the plain loops."""

    index: int
    name: str

    def __str__(self):
        return self.name

    def ms_deform_attn(
        self,
        value,
        sampling,
        levels,
        *,
        heads,
        points,
        threads=1,
        storage="float32",
        value_scale=None,
    ):
        """An int8 value where it has a scale."""
        sides = [side for level in levels for side in level]
        sizes = (ctypes.c_int64(len(levels)), ctypes.c_int64(heads), ctypes.c_int64(points))
        value_storage = storage if value_scale is None else "int8"
        inputs = [stored(value, value_storage), stored(sampling, storage)]
        scale = ctypes.c_float(1.0 if value_scale is None else value_scale)
        types = (STORAGE[value_storage], scale)
        arguments = (*types, *_arrays(inputs), _shape(sides), *sizes)
        output = np.full(value.shape, 77, inputs[1].dtype)  # nothing may stay unwritten
        return self._call("m2f_ms_deform_attn", output, arguments, threads, storage)

    def masked_attention(self, q, k, v, mask, *, heads, threads=1, storage="float32"):
        inputs = [stored(x, storage) for x in (q, k, v, mask)]
        arguments = (*_arrays(inputs), ctypes.c_int64(heads))
        output = np.full(q.shape, 77, inputs[0].dtype)
        return self._call("m2f_masked_attention", output, arguments, threads, storage)

    def _call(self, function, output, arguments, threads, storage):
        message = ctypes.create_string_buffer(MESSAGE_BYTES)
        failed = getattr(ctypes.CDLL(str(PATH)), function)(
            self.index,
            STORAGE[storage],
            threads,
            *arguments,
            output.ctypes.data_as(ctypes.c_void_p),
            message,
            ctypes.c_size_t(MESSAGE_BYTES),
        )
        if failed:
            raise ValueError(message.value.decode())
        return output


def _arrays(arrays):
    for array in arrays:
        yield array.ctypes.data_as(ctypes.c_void_p)
        yield _shape(array.shape)


def _shape(sizes):
    return (ctypes.c_int64 * len(sizes))(*sizes)


def _present():
    if PATH is None:
        return
    name = ctypes.CDLL(str(PATH)).m2f_kernels
    name.restype = ctypes.c_char_p
    index = 0
    while found := name(index):
        yield Kernels(index, found.decode())
        index += 1


FAST = tuple(_present())
"""The fastest first."""

BACKENDS = (*FAST, Kernels(-1, "plain")) if FAST else ()
