"""Where TensorRT's headers are: an SDK's, JetPack's, or those that a wheel carries."""

import importlib.util
import os
import platform
import re
from pathlib import Path

import pytest


def find():
    """The folder with NvInferRuntime.h, or None."""
    folders = [Path("/usr/include") / f"{platform.machine()}-linux-gnu"]
    if root := os.environ.get("TENSORRT_ROOT"):
        folders.insert(0, Path(root) / "include")
    wheel = importlib.util.find_spec("kernel_lens")
    if wheel is not None and wheel.submodule_search_locations:
        folders.append(Path(wheel.submodule_search_locations[0]) / "include" / "tensorrt")
    return next((f for f in folders if (f / "NvInferRuntime.h").is_file()), None)


FOLDER = find()

needs_headers = pytest.mark.skipif(
    FOLDER is None,
    reason="no TensorRT headers: set TENSORRT_ROOT or pip install --no-deps kernel-lens==2.0.1",
)


def version():
    """(major, minor) of the headers."""
    text = (FOLDER / "NvInferVersion.h").read_text()
    names = ("TRT_MAJOR_ENTERPRISE", "TRT_MINOR_ENTERPRISE")
    found = [re.search(rf"define {name} (\d+)", text) for name in names]
    return tuple(int(match[1]) for match in found)
