"""The plugins' sources and TensorRT's headers: nothing that a later TensorRT takes away."""

import subprocess

import pytest

from tests.cuda_on_cpu import build
from tests.plugins import headers

pytestmark = [build.needs_compiler, headers.needs_headers]

SOURCES = sorted((build.ROOT / "plugins" / "tensorrt").glob("*.cc"))
DEPRECATED = "#include <NvInferRuntime.h>\nauto kind = nvinfer1::PluginVersion::kV2;\n"


def said_of(source):
    """What the compiler objects to; deprecated names are errors."""
    folders = (build.HERE / "include", build.HERE, headers.FOLDER)
    include = [word for folder in folders for word in ("-isystem", str(folder))]
    options = ("-std=c++17", "-fsyntax-only", "-Wall", "-Wextra", "-Wpedantic", "-Werror")
    command = [build.COMPILER, *options, f"-I{build.ROOT}/plugins", *include, str(source)]
    return subprocess.run(command, capture_output=True, text=True, check=False).stderr


def test_the_headers_are_of_a_version_that_is_supported():
    assert (10, 3) <= headers.version() < (12, 0)


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.name)
def test_sources_use_nothing_deprecated(source):
    """What TensorRT removes, it deprecates first; IPluginV3's interfaces are not."""
    assert said_of(source) == ""


def test_a_deprecated_name_would_be_noticed(tmp_path):
    source = tmp_path / "old.cc"
    source.write_text(DEPRECATED)
    assert "deprecated" in said_of(source)
