"""Native preprocessing against Pillow, byte by byte, and against NumPy."""

import numpy as np
import pytest
from PIL import Image

from m2f.config import Preprocess
from m2f.errors import M2FError, ShapeError
from m2f.plugins import library as files
from m2f.runtime.preprocess import Prepared, _linear, assemble, prepare
from tests import tolerance
from tests.images.kernels import KERNELS, needs_library, opened

pytestmark = needs_library

SIZES = {
    "smaller": ((100, 160), (67, 133)),
    "larger": ((48, 64), (80, 107)),
    "much smaller": ((300, 700), (9, 13)),
    "much larger": ((3, 2), (211, 130)),
    "rows only": ((37, 53), (90, 53)),
    "columns only": ((37, 53), (37, 20)),
    "as it was": ((37, 53), (37, 53)),
    "both ways": ((20, 90), (70, 31)),
    "to one pixel": ((41, 43), (1, 1)),
    "from one pixel": ((1, 1), (40, 33)),
    "a row": ((1, 999), (1, 100)),
    "a column": ((999, 1), (100, 1)),
    "tall and wider": ((109, 34), (15, 39)),
    "tall and smaller": ((128, 17), (80, 10)),
    "just not tall": ((41, 30), (13, 16)),
}


def image_of(size, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)


def pillow(image, size):
    h, w = size
    return np.asarray(Image.fromarray(image).resize((w, h), Image.Resampling.BILINEAR))


def resized(library, image, size, padding=(0, 0), **options):
    """The slot after resizing into it; it held other bytes before."""
    slot = np.full((size[0] + padding[0], size[1] + padding[1], 3), 77, np.uint8)
    library.resize(image, size, slot, **options)
    return slot


def written(image, size, threads=2):
    slot = np.full((*size, 3), 77, np.uint8)
    Prepared(image, size).write(slot, threads=threads)
    return slot


@pytest.mark.parametrize(("source", "size"), SIZES.values(), ids=SIZES)
def test_antialiased_is_pillow_to_the_byte(source, size):
    image = image_of(source)
    assert np.array_equal(written(image, size), pillow(image, size))


@pytest.mark.parametrize("seed", range(60))
def test_random_sizes_are_pillow_to_the_byte(seed):
    rng = np.random.default_rng(seed)
    source, size = (tuple(int(s) for s in rng.integers(1, 130, 2)) for _ in range(2))
    image = image_of(source, seed)
    assert np.array_equal(written(image, size, 1 + seed % 4), pillow(image, size))


@pytest.mark.parametrize(("source", "size"), SIZES.values(), ids=SIZES)
def test_all_kernels_give_the_same_bytes(source, size):
    image = image_of(source)
    first, *others = (resized(opened(k), image, size, antialias=True) for k in KERNELS)
    assert all(np.array_equal(first, other) for other in others)


@pytest.mark.parametrize("level", [0, 255])
def test_flat_images_stay_flat(level):
    image = np.full((90, 70, 3), level, np.uint8)
    for antialias in (True, False):
        assert (resized(opened(), image, (33, 131), antialias=antialias) == level).all()


@pytest.mark.parametrize(("source", "size"), SIZES.values(), ids=SIZES)
def test_the_four_nearest_pixels_as_in_numpy(source, size):
    """Bytes may differ where a mean lies within rounding of a half: at most one in 1e4."""
    image = image_of(source)
    found = resized(opened(), image, size, antialias=False).astype(int)
    error = np.abs(found - _linear(image, size))
    assert error.max() <= tolerance.GRAY_LEVEL
    assert np.count_nonzero(error) <= 1 + error.size / 1e4


@pytest.mark.parametrize("antialias", [True, False])
@pytest.mark.parametrize("padding", [(0, 0), (1, 0), (0, 1), (70, 33)])
def test_padding_is_zero(antialias, padding):
    image, size = image_of((40, 50)), (61, 70)
    plain = resized(opened(), image, size, antialias=antialias)
    slot = resized(opened(), image, size, padding, antialias=antialias)
    assert np.array_equal(slot[:61, :70], plain)
    assert not slot[61:].any()
    assert not slot[:, 70:].any()


@pytest.mark.parametrize("name", KERNELS)
def test_results_do_not_depend_on_the_threads(name):
    image = image_of((150, 90))
    for antialias in (True, False):
        first, *others = (
            resized(opened(name, n), image, (211, 77), (9, 5), antialias=antialias)
            for n in (1, 2, 3, 4)
        )
        assert all(np.array_equal(first, other) for other in others)


def test_slices_of_images_are_taken():
    image = image_of((40, 60))[:, ::2]
    expected = pillow(np.ascontiguousarray(image), (20, 21))
    assert np.array_equal(written(image, (20, 21)), expected)


def test_a_slot_that_is_too_small_is_refused():
    with pytest.raises(M2FError, match="cannot become 20x21 within 20x20"):
        opened().resize(
            image_of((9, 9)), (20, 21), np.empty((20, 20, 3), np.uint8), antialias=True
        )


@pytest.mark.parametrize("resize", ["shortest_edge", "mmdet", "none"])
def test_batches_are_the_same_without_the_library(resize, monkeypatch):
    rules = Preprocess(resize=resize, min_size=60, max_size=90)
    images = [prepare(image_of(size), rules) for size in ((40, 50), (120, 70), (60, 61))]
    images.append(images[-1])
    found, sizes = assemble(images, threads=2)
    monkeypatch.setenv(files.VARIABLE, "off")
    expected, same = assemble(images)
    assert np.array_equal(sizes, same)
    error = np.abs(found.astype(int) - expected)
    assert error.max() <= (tolerance.GRAY_LEVEL if resize == "mmdet" else 0)
    assert np.count_nonzero(error) <= error.size / 1e4


def test_a_batch_goes_into_memory_that_is_given():
    images = [Prepared(image_of((40, 50)), (33, 44)), Prepared(image_of((9, 9), 1), (20, 60))]
    expected, _ = assemble(images)
    memory = np.full((2, 64, 96, 3), 5, np.uint8)
    batch, sizes = assemble(images, out=memory)
    assert batch is memory
    assert sizes.tolist() == [[33, 44], [20, 60]]
    assert np.array_equal(memory[:, :33, :60], expected)
    assert not memory[:, 33:].any()
    assert not memory[:, :, 60:].any()
    with pytest.raises(ShapeError, match="2x33x60 does not fit memory of 2x32x96"):
        assemble(images, out=memory[:, :32])
