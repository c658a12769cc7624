"""Every set of kernels of the native library, and logits to try them on."""

import numpy as np
import pytest

from m2f.plugins import library
from m2f.runtime.logits import Frame
from m2f.runtime.native import Library
from tests.runtime.cases import random_logits

PATH = library.find()
THINGS = [k < 3 for k in range(7)]


def _present():
    """Name and index of each; none where the library is missing or has no image processing."""
    if PATH is None:
        return
    try:
        Library(PATH)
    except AttributeError:
        return
    name = Library(PATH)._library.m2f_kernels
    name.restype = library.ctypes.c_char_p
    index = 0
    while found := name(index):
        yield found.decode(), index
        index += 1


KERNELS = dict(_present())
"""The fastest first."""

needs_library = pytest.mark.skipif(not KERNELS, reason="m2f has no native library here")


def opened(name=None, threads=2):
    index = 0 if name is None else KERNELS[name]
    return Library(PATH, threads=threads, isa=index)


FRAMES = {
    "larger": Frame(padded=(64, 96), valid=(51, 83), output=(90, 201)),
    "smaller": Frame(padded=(64, 96), valid=(51, 83), output=(23, 31)),
    "much smaller": Frame(padded=(64, 96), valid=(64, 96), output=(3, 2)),
    "much larger": Frame(padded=(64, 96), valid=(1, 2), output=(70, 90)),
    "one pixel": Frame(padded=(64, 96), valid=(51, 83), output=(1, 1)),
    "one column": Frame(padded=(64, 96), valid=(51, 83), output=(40, 1)),
    "as it was": Frame(padded=(64, 96), valid=(64, 96), output=(64, 96)),
    "cropped only": Frame(padded=(64, 96), valid=(33, 65), output=(33, 65)),
    "one axis": Frame(padded=(64, 96), valid=(64, 96), output=(64, 130)),
}


def blobs(seed, queries=12, classes=7, size=(16, 24)):
    """Logits as a trained network's: few masks overlap, most of each is far below zero."""
    rng = np.random.default_rng(seed)
    logits, _ = random_logits(seed, queries, classes, size)
    y, x = np.mgrid[: size[0], : size[1]]
    centre = rng.uniform(0, 1, (2, queries, 1, 1)) * np.array(size)[:, None, None, None]
    radius = rng.uniform(0.1, 0.5, (2, queries, 1, 1)) * np.array(size)[:, None, None, None]
    away = ((y - centre[0]) / radius[0]) ** 2 + ((x - centre[1]) / radius[1]) ** 2
    return logits, np.clip(12 * (1 - away), -20, 9).astype(np.float32)


KINDS = {"blobs": blobs, "noise": random_logits}
