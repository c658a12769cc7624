import dataclasses
import json
import subprocess
import sys

import numpy as np
import onnx
import pytest
from PIL import Image

import m2f
from m2f.bundle import Bundle
from m2f.config import Preprocess
from m2f.errors import (
    BundleError,
    CheckFailed,
    ImageError,
    MissingFile,
    ShapeError,
    UsageError,
)
from m2f.runtime.backend_ort import OrtBackend
from tests.runtime import toy


@pytest.fixture(scope="session")
def bundle(tmp_path_factory):
    return toy.write(tmp_path_factory.mktemp("bundles") / "toy")


@pytest.fixture(scope="session")
def session(bundle):
    with m2f.load(bundle, threads=1) as session:
        yield session


def test_panoptic(session):
    image, expected = toy.picture()
    prediction = session(image)
    assert prediction.task == "panoptic"
    assert prediction.size == (64, 96)
    assert [s.name for s in prediction.segments] == ["apple", "frog", "sky"]
    assert np.array_equal(prediction.segment_ids, expected + 1)
    assert np.array_equal(prediction.label_map, expected)
    assert prediction.segments[1].box == (32, 0, 32, 64)
    assert prediction.segments[1].area == 32 * 64


def test_semantic(session):
    image, expected = toy.picture()
    prediction = session(image, task="semantic")
    assert np.array_equal(prediction.label_map, expected)
    assert prediction.labels.tolist() == [0, 1, 2]
    assert np.isnan(prediction.scores).all()


def test_instance(session):
    image, expected = toy.picture()
    prediction = session(image, task="instance").above(0.5)
    assert sorted(prediction.labels.tolist()) == [0, 1]  # things only
    for label, mask in zip(prediction.labels, prediction.masks, strict=True):
        assert np.array_equal(mask, expected == label)


def test_paths_and_lists(session, tmp_path):
    image, expected = toy.picture()
    Image.fromarray(image).save(tmp_path / "a.png")
    one = session(tmp_path / "a.png")
    several = session([tmp_path / "a.png", Image.fromarray(image), image])
    for prediction in (one, *several):
        assert np.array_equal(prediction.label_map, expected)
    assert session([]) == []


def test_images_of_different_sizes_in_one_batch(session):
    """Each as if alone: the network is told where the padding begins."""
    sizes = [(64, 96), (40, 60), (8, 200), (33, 47), (64, 64)]  # five, of batches of four
    images = [toy.picture(*size)[0] for size in sizes]
    for image, prediction in zip(images, session(images), strict=True):
        alone = session(image)
        assert prediction.size == image.shape[:2]
        assert np.array_equal(prediction.label_map, alone.label_map)


def test_a_fixed_bundle_fills_its_batch_and_its_canvas(tmp_path):
    rules = Preprocess(min_size=96, max_size=128)
    path = toy.write(
        tmp_path / "fixed", batch=(2, 2), height=(96, 96), width=(128, 128), preprocess=rules
    )
    image, expected = toy.picture(240, 192)
    with m2f.load(path, threads=1) as session:
        predictions = session([image, image, image])
        shape = session.logits([session.prepare(image)])[1].shape
    assert shape == (1, 3, 24, 32)
    assert len(predictions) == 3
    for prediction in predictions:
        assert prediction.size == (240, 192)
        # Bilinear both ways: a few columns beside the two borders may go either way.
        assert np.mean(prediction.label_map != expected) < 2 * 6 / 192


def test_post_processing_can_be_changed_when_loading(bundle):
    with m2f.load(bundle, threads=1, convention="hf", overlap_threshold=0.5) as session:
        rules = session.metadata.postprocess
        image, expected = toy.picture()
        assert (rules.convention, rules.overlap_threshold) == ("hf", 0.5)
        assert np.mean(session(image).label_map != expected) < 0.05


def test_a_backend_of_ones_own(bundle):
    class Shouting:
        name = "shouting"
        takes_image_size = True
        closed = False

        def run(self, image, image_size):
            n, h, w, _ = image.shape
            masks = np.full((n, 3, h // 4, w // 4), -9.0, np.float32)
            masks[:, 1] = 9
            classes = np.zeros((n, 3, 4), np.float32)
            classes[:, range(3), range(3)] = 9
            return classes, masks

        def close(self):
            self.closed = True

    backend = Shouting()
    with m2f.load(bundle, backend=backend) as session:
        prediction = session(np.zeros((32, 32, 3), np.uint8))
    assert [s.name for s in prediction.segments] == ["frog"]
    assert backend.closed


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_network_that_answers_nan_is_reported(bundle, session, value):
    class Broken:
        name = "broken"
        takes_image_size = True

        def run(self, image, image_size):
            classes, masks = session.backend.run(image, image_size)
            masks[0, 0, 0, 0] = value
            return classes, masks

        def close(self):
            pass

    with pytest.raises(CheckFailed, match="mask logits are NaN or infinite"):
        m2f.load(bundle, backend=Broken())(toy.picture()[0])


def test_usage_errors(bundle, session):
    with pytest.raises(UsageError, match="unknown backend 'cuda'; there are onnxruntime, "):
        m2f.load(bundle, backend="cuda")
    with pytest.raises(UsageError, match="unknown device 'gpu'; there are 'cpu', 'cuda'"):
        m2f.load(bundle, device="gpu")
    with pytest.raises(UsageError, match="tensorrt runs on NVIDIA GPUs only"):
        m2f.load(bundle, backend="tensorrt", device="cpu")
    with pytest.raises(UsageError, match=r"unknown fields \['tresholds'\]"):
        m2f.load(bundle, tresholds=1)
    with pytest.raises(UsageError, match="'coco' is none of 'official'"):
        m2f.load(bundle, convention="coco")
    with pytest.raises(UsageError, match="no such task; it answers 'panoptic'"):
        session(toy.picture()[0], task="depth")
    with pytest.raises(UsageError, match="threads must be at least 1, got 0"):
        m2f.load(bundle, threads=0)


def test_a_task_the_model_was_not_trained_for(tmp_path):
    path = toy.write(tmp_path / "b", tasks=("semantic",))
    with pytest.raises(UsageError, match="was not trained for it; it answers 'semantic'"):
        m2f.load(path, task="panoptic")


def test_bad_images_are_refused_before_the_network_runs(session, tmp_path):
    with pytest.raises(MissingFile, match="no such file"):
        session(tmp_path / "absent.png")
    with pytest.raises(ImageError, match="must be uint8"):
        session(np.zeros((8, 8, 3)))
    with pytest.raises(ImageError, match="a batch is a list of images"):
        session(np.zeros((2, 8, 8, 3), np.uint8))


def test_categories_that_do_not_fit_the_network(bundle):
    opened = Bundle.open(bundle)
    metadata = dataclasses.replace(opened.manifest.metadata, categories=toy.CATEGORIES[:2])
    manifest = dataclasses.replace(opened.manifest, metadata=metadata)
    with (
        m2f.load(dataclasses.replace(opened, manifest=manifest)) as session,
        pytest.raises(ShapeError, match="gives 3 classes, there are 2 categories"),
    ):
        session(toy.picture()[0])


@pytest.mark.parametrize("kind", ["optional", "required", "absent"])
def test_image_size_is_fed_only_where_it_is_known(tmp_path, kind):
    path = toy.write(tmp_path / "b", image_size=kind)
    with m2f.load(path, threads=1) as session:
        assert session.backend.takes_image_size == (kind != "absent")
        image, expected = toy.picture(64, 96)
        assert np.array_equal(session(image).label_map, expected)
        if kind == "absent":
            with pytest.raises(BundleError, match="image of 32x32 cannot be padded to 64x96"):
                session([image, image[:32, :32]])


def test_loading_is_silent(bundle, capfd):
    m2f.load(bundle, threads=1).close()
    assert capfd.readouterr() == ("", "")


def test_a_closed_session(bundle):
    session = m2f.load(bundle, threads=1)
    session.close()
    session.close()
    with pytest.raises(UsageError, match="was closed"):
        session(toy.picture()[0])


def test_a_damaged_onnx_file(tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(b"not protobuf")
    with pytest.raises(BundleError, match=r"model\.onnx: cannot be loaded: "):
        OrtBackend(path)
    with pytest.raises(MissingFile, match="no such file"):
        OrtBackend(tmp_path / "absent.onnx")


def test_an_onnx_file_of_something_else(tmp_path):
    other = toy.model()
    other.graph.input[0].name = "pixels"
    for node in other.graph.node:
        node.input[:] = ["pixels" if name == "image" else name for name in node.input]
    onnx.save(other, tmp_path / "other.onnx")
    with pytest.raises(BundleError, match=r"has the inputs \['pixels'\], expected `image`"):
        OrtBackend(tmp_path / "other.onnx")


def test_neither_importing_nor_running_needs_torch(bundle):
    code = f"""
import json, sys
import m2f
spine = sorted(set(sys.modules) & {{"numpy", "PIL", "onnxruntime", "torch"}})
import m2f.runtime.session
before = "torch" in sys.modules, "onnxruntime" in sys.modules
import numpy
with m2f.load({str(bundle)!r}, threads=1) as session:
    prediction = session(numpy.zeros((32, 32, 3), numpy.uint8))
    prediction.overlay(numpy.zeros((32, 32, 3), numpy.uint8))
    prediction.to_coco_rle()
loaded = sorted(m for m in sys.modules if m == "torch" or m.startswith("m2f.models"))
print(json.dumps([spine, before, loaded]))
"""
    output = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout
    assert json.loads(output) == [[], [False, False], []]


def test_the_package_offers_what_it_lists():
    assert set(m2f.__all__) <= set(dir(m2f))
    assert {m2f.Session.__name__, m2f.load.__name__} == {"Session", "load"}
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        m2f.nothing  # noqa: B018
