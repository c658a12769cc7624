"""One small checkpoint and one bundle for all tests of the command line."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from m2f.bundle import Range
from m2f.cli import app
from m2f.config import (
    ModelConfig,
    PixelDecoderConfig,
    ResNetConfig,
    TransformerDecoderConfig,
)
from m2f.export import Options, export
from m2f.models.checkpoint import write_official
from tests.weights import synthetic

TINY = ModelConfig(
    backbone=ResNetConfig(blocks=(1, 1, 1, 1), width=8, block="basic"),
    pixel_decoder=PixelDecoderConfig(channels=32, mask_channels=32, heads=4, layers=1, ffn=32),
    transformer_decoder=TransformerDecoderConfig(
        queries=5, layers=3, channels=32, heads=4, ffn=32
    ),
    classes=3,
)
OPTIONS = Options(batch=Range(min=1, max=2))


@pytest.fixture
def m2f():
    """Runs a command in this process; whatever it meets, it may not show a traceback."""

    def run(*words, code=0):
        result = CliRunner().invoke(app, [str(word) for word in words])
        assert "Traceback" not in result.stderr + result.stdout
        assert result.exit_code == code, result.stderr + result.stdout
        return result

    return run


@pytest.fixture
def refused(m2f):
    """Runs a command that must fail with one sentence; gives the sentence."""

    def run(*words, code):
        result = m2f(*words, code=code)
        said = result.stderr.splitlines()
        line, *listed = (line for line in said if not line.startswith("m2f: note: "))
        assert line.startswith("m2f: ")
        assert all(more.startswith("  ") for more in listed)  # e.g. weights that do not fit
        assert result.stdout == ""
        return line

    return run


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
    path = tmp_path_factory.mktemp("checkpoint") / "tiny.pkl"
    write_official(synthetic(TINY), path)
    return path


@pytest.fixture(scope="session")
def exported(checkpoint, tmp_path_factory):
    """Not to be changed; see `bundle`."""
    out = tmp_path_factory.mktemp("bundle") / "tiny.m2f"
    export(checkpoint, out, options=OPTIONS)
    return out


@pytest.fixture
def bundle(exported, tmp_path):
    """A copy that a test may damage."""
    return shutil.copytree(exported, tmp_path / "tiny.m2f")


@pytest.fixture
def edit_manifest(bundle):
    """Changes the manifest in place: the function is given its parsed JSON."""

    def edit(change):
        path = bundle / "manifest.json"
        raw = json.loads(path.read_text())
        change(raw)
        path.write_text(json.dumps(raw))

    return edit


@pytest.fixture(scope="session")
def photo(tmp_path_factory):
    path = tmp_path_factory.mktemp("photo") / "street.png"
    pixels = np.random.default_rng(3).integers(0, 256, (6, 8, 3), np.uint8)
    Image.fromarray(pixels).resize((120, 90)).save(path)
    return path


@pytest.fixture(scope="session")
def photos(tmp_path_factory):
    """Ten, all different; the preprocessing makes them large, so that a run takes a while."""
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(11)
    for i in range(10):
        pixels = rng.integers(0, 256, (6, 8, 3), np.uint8)
        Image.fromarray(pixels).resize((64, 48)).save(folder / f"{i}.png")
    return folder


@pytest.fixture(scope="session")
def small(exported, tmp_path_factory):
    """The bundle with a preprocessing that keeps images small."""
    path = shutil.copytree(exported, tmp_path_factory.mktemp("small") / "small.m2f")
    raw = json.loads((path / "manifest.json").read_text())
    raw["metadata"]["preprocess"] |= {"min_size": 48, "max_size": 64}
    (path / "manifest.json").write_text(json.dumps(raw))
    return path
