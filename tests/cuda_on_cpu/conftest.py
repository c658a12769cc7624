"""Kernels are compiled once per session."""

import pytest

from tests.cuda_on_cpu import build


@pytest.fixture(scope="session")
def kernels(tmp_path_factory):
    """``kernels(*sources, checked=...)`` compiles CUDA sources for the CPU."""
    folder = tmp_path_factory.mktemp("cuda_on_cpu")

    def compile_(*sources, checked, flags=()):
        return build.compile_kernels(folder, *sources, checked=checked, flags=flags)

    return compile_
