"""`m2f check`: any two artefacts of one model, on the same images."""

import json

import numpy as np
import pytest
from PIL import Image

from m2f.errors import MissingFile, UsageError
from m2f.evaluate.check import check, mask_iou
from m2f.export import Options, export
from m2f.models.checkpoint import write_official
from tests.export.models import small
from tests.export.test_parity import changed

QUICK = {"check": False}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A checkpoint file, both forms of it, one that is a little wrong, and two images."""
    pytest.importorskip("torch")
    root = tmp_path_factory.mktemp("check")
    checkpoint = small("basic_blocks")
    write_official(checkpoint.weights, root / "model.pth")
    export(root / "model.pth", root / "plugin", options=Options(form="plugin", **QUICK))
    export(root / "model.pth", root / "portable", options=Options(form="portable", **QUICK))
    name = "pixel_decoder.layers.0.linear1"
    wrong = changed(checkpoint, f"{name}.weight", 1.01)
    export(wrong, root / "wrong", options=Options(**QUICK))
    export(small("odd_windows"), root / "other", options=Options(**QUICK))
    rng = np.random.default_rng(0)
    (root / "images").mkdir()
    for i, size in enumerate(((60, 90, 3), (100, 40, 3))):
        pixels = rng.integers(0, 255, size, np.uint8)
        Image.fromarray(pixels).resize((size[1], size[0])).save(root / "images" / f"{i}.png")
    return root


def test_a_checkpoint_and_its_bundle_are_the_same(folder):
    report = check(folder / "model.pth", folder / "plugin", layers=True)
    (image,) = report.images
    assert report.passed
    assert image.image == "built-in"
    assert 0 < image.mask_bound < 1e-4, "the bound is derived from float64, not the general one"
    assert image.class_agreement == 1
    assert image.mask_iou > 0.999
    assert len(image.layers) > 40
    assert image.first_divergence is None


def test_two_forms_are_the_same_on_every_image(folder):
    report = check(folder / "plugin", folder / "portable", [folder / "images"])
    assert report.passed
    assert [image.image for image in report.images] == ["0.png", "1.png"]
    assert all(image.decisions > 0 for image in report.images)


def test_a_wrong_weight_is_found_and_placed(folder):
    report = check(folder / "model.pth", folder / "wrong", layers=True)
    assert not report.passed
    assert report.images[0].first_divergence == "pixel_decoder.layers.0.linear1"
    assert report.notes == ("the two were not made from the same checkpoint file",)
    raw = json.loads(json.dumps(report.to_json()))
    assert raw["passed"] is False
    assert raw["images"][0]["first_divergence"] == "pixel_decoder.layers.0.linear1"


def test_two_models_are_not_compared(folder):
    with pytest.raises(UsageError, match=r"different models: .* 5 classes and .* 1 classes"):
        check(folder / "plugin", folder / "other")


def test_sizes_that_do_not_meet_are_said(folder, tmp_path):
    export(folder / "model.pth", tmp_path / "fixed", options=Options(size=(64, 64), **QUICK))
    export(folder / "model.pth", tmp_path / "large", options=Options(size=(96, 96), **QUICK))
    with pytest.raises(UsageError, match="takes a height of 96, this image needs 64"):
        check(tmp_path / "fixed", tmp_path / "large")


def test_what_is_not_there_is_said(folder):
    with pytest.raises(MissingFile):
        check(folder / "nothing", folder / "plugin")


def test_mask_iou():
    a = np.array([[[1, 1, 0]], [[0, 0, 0]], [[1, 0, 0]]], bool)
    b = np.array([[[1, 0, 0]], [[0, 0, 0]], [[0, 1, 0]]], bool)
    assert mask_iou(a, b).tolist() == [0.5, 1.0, 0.0]
