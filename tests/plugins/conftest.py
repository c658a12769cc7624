"""The plugins are compiled once per session, for the CPU."""

import pytest

from tests.cuda_on_cpu import build
from tests.plugins import headers
from tests.plugins.driven import Library

SOURCES = (
    "plugins/ops/masked_attention/cuda.cu",
    "plugins/ops/masked_attention/op.cc",
    "plugins/ops/ms_deform_attn/cuda.cu",
    "plugins/ops/ms_deform_attn/op.cc",
    "plugins/tensorrt/fields.cc",
    "plugins/tensorrt/library.cc",
    "plugins/tensorrt/tensors.cc",
    "tests/plugins/drive.cc",
)


@pytest.fixture(scope="session")
def driven(tmp_path_factory):
    """The plugin library with CUDA played by the CPU, and TensorRT by drive.cc."""
    folder = tmp_path_factory.mktemp("plugins")
    # As system headers: deprecated names still warn where they are used, which is an error.
    flags = ("-isystem", str(headers.FOLDER))
    return Library(build.compile_kernels(folder, *SOURCES, checked=False, flags=flags))
