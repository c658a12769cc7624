"""The native library through its C API: every kernel this machine can run, and plain loops."""

import ctypes
import dataclasses

import numpy as np
import pytest

from m2f.plugins import library

STORAGE = {"float32": 0, "float16": 1, "bfloat16": 2}
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
        self, value, sampling, levels, *, heads, points, threads=1, storage="float32"
    ):
        sides = [side for level in levels for side in level]
        sizes = (ctypes.c_int64(len(levels)), ctypes.c_int64(heads), ctypes.c_int64(points))
        inputs = [stored(x, storage) for x in (value, sampling)]
        arguments = (*_arrays(inputs), _shape(sides), *sizes)
        return self._call("m2f_ms_deform_attn", inputs, arguments, threads, storage)

    def masked_attention(self, q, k, v, mask, *, heads, threads=1, storage="float32"):
        inputs = [stored(x, storage) for x in (q, k, v, mask)]
        arguments = (*_arrays(inputs), ctypes.c_int64(heads))
        return self._call("m2f_masked_attention", inputs, arguments, threads, storage)

    def _call(self, function, inputs, arguments, threads, storage):
        output = np.full(inputs[0].shape, 77, inputs[0].dtype)  # nothing may stay unwritten
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
