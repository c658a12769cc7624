"""A small network as bundles, and pictures to calibrate it on."""

import numpy as np
import pytest
from PIL import Image

from m2f.bundle import Range
from m2f.export import Options, export
from tests.export.models import small

SIZE = (64, 96)


@pytest.fixture(scope="session")
def bundle(tmp_path_factory):
    """Not to be changed. Its pictures come in many sizes and are all made to fit."""
    folder = tmp_path_factory.mktemp("calib")
    options = Options(min_size=(1, 1), max_size=SIZE, batch=Range(min=1, max=1), check=False)
    return export(small("basic_blocks"), folder / "small.m2f", options=options)


@pytest.fixture(scope="session")
def pictures(tmp_path_factory):
    """Twelve, all different."""
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(7)
    for i in range(12):
        rough = rng.integers(0, 256, (4 + i % 3, 5, 3), np.uint8)
        picture = Image.fromarray(rough).resize((96, 64 - 2 * i), Image.Resampling.BICUBIC)
        picture.save(folder / f"{i:02}.png")
    return folder
