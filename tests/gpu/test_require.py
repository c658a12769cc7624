"""The suite skips visibly without a GPU, and fails where one is required."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from m2f import gpu
from m2f.errors import DeviceError

ROOT = Path(__file__).parents[2]
TEST = "tests/gpu/test_engines_run.py::test_more_memory_than_there_is"


def run(required):
    command = [sys.executable, "-m", "pytest", "-q", "-rs", "-p", "no:cacheprovider", TEST]
    env = {**os.environ, "M2F_REQUIRE": required}
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)


def test_without_a_gpu():
    try:
        gpu.gpu()
    except DeviceError:
        pass
    else:
        pytest.skip("there is a GPU")
    skipped = run("")
    assert skipped.returncode == 0
    assert "1 skipped" in skipped.stdout
    assert "no gpu: no NVIDIA driver is installed" in skipped.stdout
    failed = run("gpu,trt")
    assert failed.returncode == 1
    assert "M2F_REQUIRE names gpu: no NVIDIA driver" in failed.stdout
