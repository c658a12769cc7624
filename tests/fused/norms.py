"""LayerNorm and GroupNorm: the native kernels, and the definitions in float64 NumPy."""

import ctypes
import dataclasses

import numpy as np

from tests import tolerance
from tests.ops.native import MESSAGE_BYTES, PATH

EPSILON = 1e-5
PART = 4096
"""Floats of which GroupNorm takes a mean at a time, at most (group_norm/kernel.h)."""


def _call(function, kernels, threads, arrays, *attributes):
    """Runs on tensors that begin at no vector's border; nothing may stay unwritten."""
    rooms = [np.concatenate([[0], array.ravel()]).astype(np.float32) for array in arrays]
    tensors = []
    for array, room in zip(arrays, rooms, strict=True):
        tensors.append(room[1:].ctypes.data_as(ctypes.c_void_p))
        tensors.append((ctypes.c_int64 * array.ndim)(*array.shape))
    if function == "m2f_group_norm" and len(arrays) == 3:
        tensors += [None, None]
    output = np.full(arrays[0].shape, 77, np.float32)
    message = ctypes.create_string_buffer(MESSAGE_BYTES)
    failed = getattr(ctypes.CDLL(str(PATH)), function)(
        kernels.index,
        threads,
        *tensors,
        *attributes,
        output.ctypes.data_as(ctypes.c_void_p),
        message,
        ctypes.c_size_t(MESSAGE_BYTES),
    )
    if failed:
        raise ValueError(message.value.decode())
    return output


def layer_norm(kernels, x, weight, bias, *, epsilon=EPSILON, threads=1):
    """Of x [rows, C]."""
    arrays = (x, weight, bias)
    return _call("m2f_layer_norm", kernels, threads, arrays, ctypes.c_float(epsilon))


def group_norm(kernels, *inputs, groups, epsilon=EPSILON, activation=0, threads=1):
    """Of x [N, C, H, W], weight and bias, and of a coarse map or none."""
    attributes = ctypes.c_int64(groups), ctypes.c_float(epsilon), ctypes.c_int64(activation)
    return _call("m2f_group_norm", kernels, threads, inputs, *attributes)


@dataclasses.dataclass(frozen=True)
class Expected:
    """What a definition gives, float64, and how far float32 may be from it."""

    output: np.ndarray
    bound: np.ndarray

    def worst(self, actual):
        """Largest error in units of its bound; NaN where there is one."""
        error = abs(actual.astype(np.float64) - self.output)
        return (error / self.bound).max(initial=0.0)


def normalised(x, weight, bias, *, count, epsilon=EPSILON):
    """Rows of x [..., n] less their mean, over their deviation; means are of `count` values."""
    x, weight, bias = (a.astype(np.float64) for a in (x, weight, bias))
    mean = x.mean(-1, keepdims=True)
    deviation = np.sqrt(((x - mean) ** 2).mean(-1, keepdims=True) + np.float32(epsilon))
    output = (x - mean) / deviation * weight + bias
    return Expected(output, tolerance.normalised(x, deviation, weight, bias, count))


def layer_norm_expected(x, weight, bias, *, epsilon=EPSILON):
    return normalised(x, weight, bias, count=x.shape[-1], epsilon=epsilon)


def enlarged(coarse):
    """[N, C, H, W] to [N, C, 2 H, 2 W]: pixel i lies at (i + 1/2) / 2 - 1/2, edges repeat."""
    for axis in (2, 3):
        size = coarse.shape[axis]
        place = np.clip((np.arange(2 * size) + 0.5) / 2 - 0.5, 0, size - 1)
        low = np.minimum(place.astype(int), max(size - 2, 0))
        part = np.expand_dims(place - low, (0, 1, 5 - axis))
        high = np.minimum(low + 1, size - 1)
        low, high = (np.take(coarse, index, axis) for index in (low, high))
        coarse = (1 - part) * low + part * high
    return coarse


def group_norm_expected(x, weight, bias, coarse=None, *, groups, epsilon=EPSILON, activation=0):
    n, _, h, w = x.shape
    weight, bias = (np.repeat(a, h * w).reshape(1, groups, -1) for a in (weight, bias))
    rows = x.reshape(n, groups, -1)
    count = min(PART, rows.shape[-1])
    found = normalised(rows, weight, bias, count=count, epsilon=epsilon)
    output = np.maximum(found.output, 0) if activation else found.output
    output, bound = output.reshape(x.shape), found.bound.reshape(x.shape)
    if coarse is not None:
        output = output + enlarged(coarse.astype(np.float64))
        bound = bound + tolerance.blended(coarse, output)
    return Expected(output, bound)


def draw(seed, shape, channels, *, mean=0.0, deviation=1.0):
    """Inputs: x of some shape, weight and bias of the channels."""
    rng = np.random.default_rng(seed)
    x = mean + deviation * rng.standard_normal(shape)
    weight, bias = rng.standard_normal((2, channels))
    return tuple(a.astype(np.float32) for a in (x, weight, bias))
