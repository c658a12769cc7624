"""Preprocessing's CUDA kernels, run on the CPU, against Pillow and the CPU's, byte by byte."""

import ctypes

import numpy as np
import pytest

from m2f.runtime import native
from m2f.runtime.preprocess import Prepared
from m2f.runtime.preprocess_cuda import DeviceSize
from tests.cuda_on_cpu.build import Order, needs_compiler, output
from tests.cuda_on_cpu.test_images import RESIZE, SOURCES
from tests.images.test_resize import SIZES, image_of, pillow

pytestmark = [
    needs_compiler,
    pytest.mark.skipif(native.library(1) is None, reason="m2f has no native library here"),
]
# Beside those of the CPU's test: tiles of 8x32 met exactly, and by one too few or too many.
TILES = {
    "whole tiles": ((31, 50), (16, 64)),
    "one more": ((31, 50), (17, 65)),
    "one fewer": ((100, 31), (15, 63)),
    "primes": ((67, 101), (29, 37)),
    "much of a row": ((3, 2000), (5, 7)),
    "much of a column": ((2000, 3), (7, 5)),
}
CASES = {**SIZES, **TILES}
PADDINGS = ((0, 0), (9, 33))


class Resizing:
    """The kernels, with the tables that the native library makes."""

    def __init__(self, kernels, order=Order.FORWARD):
        self.kernels, self.order = kernels, order

    def __call__(self, image, size, padding=(0, 0), *, rows_first=False):
        tables = [self.table(a, b) for a, b in zip(image.shape, size, strict=False)]
        strides = [table.shape[1] - 2 for table in tables]
        given = (*tables, ctypes.c_int32(rows_first))
        return self._call("resize", image, size, padding, strides, given)

    def nearest(self, image, size, padding=(0, 0)):
        return self._call("resize_nearest", image, size, padding, (0, 0), ())

    def table(self, source, target):
        stride = native.library(1).resize_stride(source, target)
        table = np.full((target, 2 + stride), -1, np.int32)
        native.library(1).resize_table(source, target, table)
        return table

    def _call(self, name, image, size, padding, strides, given):
        padded = (size[0] + padding[0], size[1] + padding[1])
        slot = output((*padded, 3), np.uint8)
        sides = DeviceSize.of(image.shape[:2], size, padded, strides)
        found = self.kernels.call(
            f"m2f_cuda_{name}",
            ctypes.byref(sides),
            np.array(image),
            *given,
            slot,
            None,  # the stream
            order=self.order,
        )
        assert found == "", found
        return np.asarray(slot)


@pytest.fixture(scope="module", params=["plain", "checked"])
def resizing(kernels, request):
    return Resizing(kernels(*SOURCES, checked=request.param == "checked"))


def on_the_host(image, size, padding, *, antialias=True):
    slot = np.full((size[0] + padding[0], size[1] + padding[1], 3), 77, np.uint8)
    Prepared(image, size, antialias).write(slot, threads=1)
    return slot


@pytest.mark.parametrize("padding", PADDINGS, ids=str)
@pytest.mark.parametrize(("source", "size"), CASES.values(), ids=CASES)
def test_antialiased_is_pillow_to_the_byte(source, size, padding, resizing):
    image = image_of(source)
    expected = on_the_host(image, size, padding)
    assert np.array_equal(expected[: size[0], : size[1]], pillow(image, size))
    for order in Order:
        resizing.order = order
        found = resizing(image, size, padding, rows_first=Prepared(image, size).rows_first)
        assert np.array_equal(found, expected)


@pytest.mark.parametrize("name", ["smaller", "tall and smaller", "primes", "much of a row"])
def test_rows_before_columns(name, resizing):
    """As two resizes one after the other; Pillow since version 13 does so for tall images."""
    source, size = CASES[name]
    image = image_of(source)
    expected = pillow(pillow(image, (size[0], source[1])), size)
    found = resizing(image, size, (1, 2), rows_first=True)
    assert np.array_equal(found[: size[0], : size[1]], expected)


@pytest.mark.parametrize("seed", range(20))
def test_random_sizes(seed, kernels):
    rng = np.random.default_rng(seed)
    source, size = (tuple(int(s) for s in rng.integers(1, 130, 2)) for _ in range(2))
    image = image_of(source, seed)
    resizing = Resizing(kernels(*SOURCES, checked=False), Order.SHUFFLED)
    found = resizing(image, size, rows_first=Prepared(image, size).rows_first)
    assert np.array_equal(found, pillow(image, size))


@pytest.mark.parametrize("level", [0, 255])
def test_flat_images_stay_flat(level, resizing):
    image = np.full((90, 70, 3), level, np.uint8)
    for rows_first in (False, True):
        assert (resizing(image, (33, 131), rows_first=rows_first) == level).all()
    assert (resizing.nearest(image, (33, 131)) == level).all()


@pytest.mark.parametrize("padding", PADDINGS, ids=str)
@pytest.mark.parametrize(("source", "size"), CASES.values(), ids=CASES)
def test_the_four_nearest_pixels_are_the_cpus(source, size, padding, resizing):
    image = image_of(source)
    expected = on_the_host(image, size, padding, antialias=False)
    for order in Order:
        resizing.order = order
        assert np.array_equal(resizing.nearest(image, size, padding), expected)


def barriers():
    """(file, line) of each barrier in the source."""
    for number, text in enumerate(RESIZE.read_text().splitlines(), 1):
        if "__sync" in text:
            yield RESIZE.name, number


@pytest.mark.parametrize("site", [*barriers()], ids=str)
def test_every_barrier_is_needed(site, kernels):
    library = kernels(*SOURCES, checked=True)
    resizing = Resizing(library, Order.SHUFFLED)

    def run():
        for rows_first in (False, True):
            resizing(image_of((67, 101)), (9, 13), rows_first=rows_first)

    run()
    library.leave_out(*site)
    try:
        with pytest.raises(AssertionError, match=r"race|nobody has written"):
            run()
    finally:
        library.leave_out("", 0)
