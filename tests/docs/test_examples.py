"""Every example runs, in order, on the model that comes with the package."""

import subprocess
import sys
from pathlib import Path

import pytest

from m2f.demo import sample

EXAMPLES = Path(__file__).parents[2] / "examples"


def run(name, *words):
    command = [sys.executable, EXAMPLES / name, *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    path = tmp_path_factory.mktemp("example") / "sample.m2f"
    assert "relative error against PyTorch" in run("01_export.py", sample(), path)
    return path


@pytest.mark.parametrize("name", ["02_segment.py", "03_supervision.py"])
def test_example(name, bundle, tmp_path):
    if "supervision" in name:
        pytest.importorskip("supervision")
    picture = tmp_path / "picture.png"
    printed = run(name, bundle, sample() / "coffee.jpg", picture)
    assert picture.stat().st_size > 10_000
    assert "cup" in printed or "instances" in printed


def test_no_example_is_left_out():
    assert sorted(p.name for p in EXAMPLES.glob("*.py")) == [
        "01_export.py",
        "02_segment.py",
        "03_supervision.py",
    ]
