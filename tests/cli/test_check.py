import dataclasses
import json

import pytest

from m2f.export import export
from m2f.models.checkpoint import write_official
from tests.cli.conftest import OPTIONS, TINY
from tests.weights import synthetic


@pytest.fixture(scope="session")
def changed(tmp_path_factory):
    """A bundle of the same model with one layer's weights changed a little."""
    folder = tmp_path_factory.mktemp("changed")
    weights = dict(synthetic(TINY))
    name = "transformer_decoder.layers.1.linear1.weight"
    weights[name] = weights[name] * 1.01
    write_official(weights, folder / "changed.pkl")
    out = folder / "changed.m2f"
    export(folder / "changed.pkl", out, options=OPTIONS)
    return out


def test_a_bundle_agrees_with_its_checkpoint(m2f, checkpoint, exported, photo):
    report = json.loads(m2f("check", checkpoint, exported, photo, "--json").stdout)
    (image,) = report["images"]
    assert report["passed"]
    assert 0 < image["class_error"] <= image["class_bound"]
    assert image["image"] == "street.png"


def test_a_change_is_found_where_it_is(m2f, exported, changed):
    result = m2f("check", exported, changed, "--layers", code=1)
    assert "DIFFERS" in result.stdout
    assert "1 of 1 images differ by more than rounding" in result.stderr
    assert "not made from the same checkpoint" in result.stderr
    last = result.stdout.splitlines()[-1]
    assert "transformer_decoder.layers.1." in last


def test_other_models_are_not_compared(refused, exported, tmp_path):
    other = dataclasses.replace(TINY, classes=4)
    write_official(synthetic(other), tmp_path / "other.pkl")
    message = refused("check", exported, tmp_path / "other.pkl", code=2)
    assert "3 classes and" in message
    assert "4 classes, which differ in classes" in message


def test_two_programs(m2f, checkpoint, exported):
    pytest.importorskip("polygraphy")
    words = ("check", checkpoint, exported, "--a", "torch", "--b", "onnxruntime")
    report = json.loads(m2f(*words, "--json", "--limit", "0.01").stdout)
    assert report["a"].startswith("PyTorch")
    assert report["b"].startswith("ONNX Runtime")
    assert 0 < report["images"][0]["mask_error"] < 0.01
    refusal = m2f(*words, "--limit", "1e-12", code=1)
    assert "differ by more than the limit of 1e-12" in refusal.stderr
    assert "DIFFERS" in refusal.stdout


def test_programs_that_are_not_there(refused, checkpoint, exported):
    pytest.importorskip("polygraphy")
    line = refused("check", checkpoint, exported, "--b", "caffe", code=2)
    assert "unknown runner 'caffe'; there are torch, onnxruntime" in line
    refused("check", checkpoint, exported, "--b", "tensorrt", code=3)
