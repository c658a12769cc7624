"""A small bundle, engines of it by TensorRT for RTX, and stand-ins for what is not here."""

import shutil
import sys

import pytest

from m2f import gpu
from m2f.bundle import Range
from m2f.config import (
    ModelConfig,
    PixelDecoderConfig,
    ResNetConfig,
    TransformerDecoderConfig,
)
from m2f.export import Options, export
from m2f.export.engines import BuildOptions, build
from tests.export.models import checkpoint_of
from tests.export.rtx import needs_rtx

SMALLEST = ModelConfig(
    backbone=ResNetConfig(blocks=(1, 1, 1, 1), width=8, block="basic"),
    pixel_decoder=PixelDecoderConfig(channels=32, mask_channels=32, heads=4, layers=1, ffn=32),
    transformer_decoder=TransformerDecoderConfig(
        queries=5, layers=3, channels=32, heads=4, ffn=32
    ),
    classes=3,
)
RTX = BuildOptions(target="tensorrt-rtx", compute=(89,))

# TensorRT's own module is played by TensorRT for RTX's, which has the same interface. It
# does not link to a GPU either until an engine runs.
TENSORRT = """
from m2f.plugins.trt import load
globals().update({k: v for k, v in vars(load("tensorrt-rtx")).items() if k[:2] != "__"})
__version__ = "11.4.0"
"""


@pytest.fixture(scope="session")
def small_bundle(tmp_path_factory):
    """Plugin form, any size to 96x128, one or two images. Not to be changed."""
    path = tmp_path_factory.mktemp("engines") / "small.m2f"
    options = Options(max_size=(96, 128), batch=Range(min=1, max=2), check=False, fused=False)
    export(checkpoint_of(SMALLEST, "smallest"), path, options=options)
    return path


@pytest.fixture
def bundle(small_bundle, tmp_path):
    return shutil.copytree(small_bundle, tmp_path / "small.m2f")


@pytest.fixture(scope="session")
def built(small_bundle, tmp_path_factory):
    """A copy of the bundle with one engine, and the report. Not to be changed."""
    needs_rtx()
    path = shutil.copytree(small_bundle, tmp_path_factory.mktemp("built") / "small.m2f")
    return path, build(path, options=RTX)


@pytest.fixture
def with_engine(built, tmp_path):
    """A copy of the bundle with its engine that a test may damage; gives both."""
    path = shutil.copytree(built[0], tmp_path / "small.m2f")
    return path, path / built[1].engine.relative_to(built[0])


@pytest.fixture
def fake_gpu(monkeypatch):
    """A machine with this GPU, as far as building asks."""
    card = gpu.Gpu(index=0, name="Test RTX 1", compute=89, memory=8 << 30, driver="13.0")
    monkeypatch.setattr(gpu, "gpus", lambda: (card,))
    return card


@pytest.fixture
def tensorrt_module(tmp_path, monkeypatch):
    """Makes `import tensorrt` give a module of this text, in the process that builds."""

    def make(text=TENSORRT):
        needs_rtx()
        folder = tmp_path / "site"
        folder.mkdir()
        (folder / "tensorrt.py").write_text(text)
        monkeypatch.setattr(
            "m2f.export.engines.process._IMPORTED_FROM", (str(folder), *filter(None, sys.path))
        )

    return make
