import numpy as np
import pytest

from m2f.bundle import InputProfile, Range
from m2f.config import Preprocess
from m2f.errors import ShapeError
from m2f.runtime.preprocess import Prepared, assemble, prepare, target_size
from tests import tolerance
from tests.golden import load

CONFIG = load("components", "config.json")


def profile(height, width=None, batch=(1, 8)):
    width = height if width is None else width
    return InputProfile(batch=Range(min=batch[0], max=batch[1]), height=height, width=width)


def fixed(side):
    return Range(min=side, max=side)


def blank(height, width):
    return np.zeros((height, width, 3), np.uint8)


@pytest.mark.parametrize("row", CONFIG["resize_shortest_edge"]["table"])
def test_shortest_edge_sizes(row):
    h, w, *expected = row
    assert target_size((h, w), Preprocess()) == tuple(expected)


@pytest.mark.parametrize("row", CONFIG["hf_preprocess"]["table"])
def test_hf_sizes(row):
    h, w, _, _, *expected = row
    assert target_size((h, w), Preprocess(resize="hf_aspect")) == tuple(expected)


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((480, 640), (800, 1067)),
        ((1080, 1920), (750, 1333)),
        ((333, 500), (800, 1201)),
        ((1024, 2048), (667, 1333)),
        # 625 * 1333 / 1250 = 666.5, rounded half up
        ((625, 1250), (667, 1333)),
    ],
)
def test_mmdet_sizes(size, expected):
    assert target_size(size, Preprocess(resize="mmdet")) == expected


def test_stretch_and_none_sizes():
    assert target_size((10, 20), Preprocess(resize="stretch", size=(384, 512))) == (384, 512)
    assert target_size((10, 20), Preprocess(resize="none")) == (10, 20)


@pytest.mark.parametrize("resize", ["shortest_edge", "hf_aspect", "mmdet"])
@pytest.mark.parametrize("size", [(1, 1), (1, 5000), (5000, 1), (2, 4000)])
def test_extreme_images_keep_a_pixel_on_each_side(resize, size):
    prepared = prepare(blank(*size), Preprocess(resize=resize))
    assert min(prepared.size) >= 1
    assert max(prepared.size) <= 1344
    assert prepared.original == size


def test_shortest_edge_pixels_are_detectron2s():
    golden, config = (
        load("components", "resize_shortest_edge.npz"),
        CONFIG["resize_shortest_edge"],
    )
    rules = Preprocess(min_size=config["min_size"], max_size=config["max_size"])
    assert np.array_equal(prepare(golden["image"], rules).pixels, golden["resized"])


@pytest.mark.parametrize(
    ("name", "rules"),
    [
        ("square", Preprocess(resize="stretch", size=(96, 96))),
        ("aspect", Preprocess(resize="hf_aspect", min_size=90, max_size=140)),
    ],
)
def test_hf_pixels(name, rules):
    image = load("components", "resize_shortest_edge.npz")["image"]
    golden, config = load("components", "hf_preprocess.npz"), CONFIG["hf_preprocess"]
    mean, std = (np.array(config[k])[:, None, None] for k in ("mean", "std"))
    pixels = prepare(image, rules).pixels.transpose(2, 0, 1)
    normalised = (pixels / 255 - mean) / std
    # transformers' processor for Pillow: the same pixels
    error = np.abs(normalised - golden[f"pil_{name}"]).max()
    assert error <= tolerance.HF_NORMALISED
    # its default, torchvision: one gray level
    back = golden[f"torchvision_{name}"] * std + mean
    assert np.abs(np.rint(back * 255) - pixels).max() <= tolerance.GRAY_LEVEL


def test_mmdet_pixels_take_the_nearest_four_without_antialias():
    image = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    rules = Preprocess(resize="mmdet", min_size=10, max_size=100)
    prepared = prepare(image, rules)
    assert prepared.size == (10, 15)
    # Shrunk by four, each output centre lies between the middle four of 4x4 pixels.
    middle = image.reshape(10, 4, 15, 4, 3)[:, 1:3, :, 1:3].astype(float)
    expected = np.floor(middle.mean(axis=(1, 3)) + 0.5)
    assert np.abs(prepared.pixels - expected).max() <= tolerance.GRAY_LEVEL
    assert np.mean(prepared.pixels == expected) > 0.99


def test_an_image_already_right_is_not_touched():
    image = np.random.default_rng(0).integers(0, 256, (800, 801, 3), np.uint8)
    assert prepare(image, Preprocess()).pixels is image


@pytest.mark.parametrize("resize", ["shortest_edge", "hf_aspect", "mmdet"])
@pytest.mark.parametrize("size", [(300, 500), (500, 300), (400, 400), (1, 900), (1, 1)])
def test_a_fixed_profile_is_filled_as_far_as_the_aspect_allows(resize, size):
    limits = profile(fixed(512), fixed(640))
    prepared = prepare(blank(*size), Preprocess(resize=resize), limits)
    h, w = prepared.size
    assert h == 512 or w == 640
    assert h <= 512
    assert w <= 640
    batch, sizes = assemble([prepared], limits)
    assert batch.shape == (1, 512, 640, 3)
    assert sizes.tolist() == [[h, w]]


def test_stretch_goes_to_the_fixed_size():
    rules = Preprocess(resize="stretch", size=(384, 384))
    assert prepare(blank(10, 20), rules, profile(fixed(512), fixed(640))).size == (512, 640)


def test_none_refuses_what_is_too_large():
    rules = Preprocess(resize="none")
    limits = profile(Range(min=32, max=512))
    assert prepare(blank(512, 100), rules, limits).size == (512, 100)
    with pytest.raises(ShapeError, match="513x100, the bundle takes at most 512x512"):
        prepare(blank(513, 100), rules, limits)


def test_images_of_different_sizes_are_padded_right_and_below():
    a, b = np.full((3, 5, 3), 7, np.uint8), np.full((4, 2, 3), 9, np.uint8)
    batch, sizes = assemble([Prepared(a, (3, 5)), Prepared(b, (4, 2))])
    assert batch.shape == (2, 4, 5, 3)
    assert sizes.dtype == np.int64
    assert sizes.tolist() == [[3, 5], [4, 2]]
    assert np.array_equal(batch[0, :3], a)
    assert np.array_equal(batch[1, :, :2], b)
    assert not batch[0, 3:].any()
    assert not batch[1, :, 2:].any()


def test_a_small_image_is_padded_to_the_least_size():
    limits = profile(Range(min=64, max=512))
    batch, sizes = assemble([Prepared(blank(3, 5), (3, 5))], limits)
    assert batch.shape == (1, 64, 64, 3)
    assert sizes.tolist() == [[3, 5]]
