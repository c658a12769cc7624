"""What only a GPU can show. Skips, and says so, where there is none.

    M2F_REQUIRE=gpu,trt pytest tests/gpu

fails instead of skipping: for machines that are there to run this.
"""

import os
import platform
import sys

import numpy as np
import pytest

from m2f import gpu
from m2f.bundle import Range
from m2f.errors import M2FError
from m2f.export import Options, export
from m2f.plugins import trt as plugins
from m2f.runtime.backend_ort import OrtBackend
from m2f.runtime.device import open_device
from tests.export.models import small

REQUIRED = frozenset(filter(None, os.environ.get("M2F_REQUIRE", "").split(",")))
"""Of "gpu", "trt", "rtx", "ort", "kernels"."""


def missing(what, why):
    """Skips, or fails where the machine must have it."""
    if what in REQUIRED:
        pytest.fail(f"M2F_REQUIRE names {what}: {why}", pytrace=False)
    pytest.skip(f"no {what}: {why}")


def pytest_report_header():
    """What a report must say: the machine, as `m2f doctor` sees it."""
    try:
        cards = ", ".join(f"{card}, CUDA {card.driver}" for card in gpu.gpus())
    except M2FError as problem:
        cards = str(problem)
    return [f"GPU: {cards}", f"system: {platform.platform()}, Python {sys.version.split()[0]}"]


@pytest.fixture(scope="session")
def device():
    try:
        return open_device()
    except M2FError as problem:
        missing("gpu", problem)


@pytest.fixture(scope="session", params=["tensorrt", "tensorrt-rtx"])
def target(request, device):
    try:
        plugins.load(request.param)
    except M2FError as problem:
        missing("trt" if request.param == "tensorrt" else "rtx", problem)
    return request.param


@pytest.fixture(scope="session")
def bundle(device, tmp_path_factory):
    """A small model with random weights, any size to 96x128, one or two images."""
    path = tmp_path_factory.mktemp("gpu") / "small.m2f"
    options = Options(max_size=(96, 128), batch=Range(min=1, max=2))
    export(small("basic_blocks"), path, options=options)
    return path


@pytest.fixture(scope="session")
def cpu(bundle):
    with OrtBackend(bundle / "model.onnx") as backend:
        yield backend


@pytest.fixture
def pictures():
    """Batches as the network takes them, of several sizes."""

    def make(n, height, width, seed=0):
        rng = np.random.default_rng([seed, n, height, width])
        y, x = np.mgrid[:height, :width]
        waves = np.sin(x / 9 + y / 13)[..., None] * rng.uniform(20, 90, 3) + 128
        image = waves + rng.normal(0, 9, (n, height, width, 3))
        sizes = np.tile(np.array([height, width], np.int64), (n, 1))
        return image.clip(0, 255).astype(np.uint8), sizes

    return make
