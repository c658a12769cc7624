"""Kernels are compiled once per session; a stand-in for a GPU runs them on its streams."""

import pytest

from m2f.plugins import library as files
from m2f.plugins import trt as plugins
from m2f.runtime.native_cuda import Kernels
from tests.cuda_on_cpu import build
from tests.cuda_on_cpu.test_images import SOURCES
from tests.runtime.stand_in import tensorrt
from tests.runtime.stand_in.device import StandInDevice
from tests.runtime.stand_in.kernels import StandInKernels


@pytest.fixture(scope="session")
def kernels(tmp_path_factory):
    """``kernels(*sources, checked=...)`` compiles CUDA sources for the CPU."""
    folder = tmp_path_factory.mktemp("cuda_on_cpu")

    def compile_(*sources, checked, flags=()):
        return build.compile_kernels(folder, *sources, checked=checked, flags=flags)

    return compile_


@pytest.fixture
def device():
    device = StandInDevice()
    yield device
    assert device.held() == []


@pytest.fixture
def functions(device, kernels):
    """The kernels of image processing, for the device."""
    return StandInKernels(device, kernels(*SOURCES, checked=False))


@pytest.fixture
def machine(device, functions, monkeypatch):
    """This process on a machine with the device, TensorRT and a library with kernels."""
    monkeypatch.setattr("m2f.runtime.device.open_device", lambda index: device)
    monkeypatch.setattr(plugins, "load", lambda target: tensorrt.module(device))
    found = Kernels(files.find(), functions)
    monkeypatch.setattr("m2f.runtime.backend_trt.kernels", lambda device: found)
