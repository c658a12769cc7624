"""The driver, and the two packages a GPU is reached through, each against a stand-in."""

import inspect
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import pytest

from m2f import gpu
from m2f.errors import DeviceError, MissingDependency, UsageError
from m2f.runtime import device as devices
from m2f.runtime.device_cuda import CudaDevice
from m2f.runtime.device_pycuda import PyCudaDevice

CARD = gpu.Gpu(index=1, name="Test RTX 1", compute=89, memory=8 << 30, driver="13.0")


@pytest.fixture(scope="session")
def driver(tmp_path_factory):
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler")
    library = tmp_path_factory.mktemp("driver") / "libcuda.so.1"
    source = Path(__file__).with_name("driver.c")
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, source], check=True)
    return library


@pytest.fixture
def with_driver(driver, monkeypatch):
    monkeypatch.setattr(gpu, "DRIVER", str(driver))
    return monkeypatch


def test_gpus(with_driver):
    first, second = gpu.gpus()
    assert str(first) == "First GPU (SM89, 8 GiB)"
    assert second == gpu.Gpu(
        index=1, name="Second GPU", compute=120, memory=24 << 30, driver="13.2"
    )
    assert gpu.gpu(1) == second


def test_a_gpu_that_is_not_there(with_driver):
    with pytest.raises(DeviceError, match=r"no GPU 2, only 0: First GPU .*, 1: Second GPU"):
        gpu.gpu(2)
    with_driver.setenv("STAND_IN_GPUS", "0")
    with pytest.raises(DeviceError, match="finds no GPU"):
        gpu.gpu()


@pytest.mark.parametrize("call", ["cuInit", "cuDeviceGetCount"])
def test_a_driver_that_fails(with_driver, call):
    with_driver.setenv("STAND_IN_FAILS", call)
    with pytest.raises(DeviceError, match=rf"{call}: no CUDA-capable device .* \(100\)"):
        gpu.gpus()


def test_no_driver(monkeypatch):
    monkeypatch.setattr(gpu, "DRIVER", "libcuda-that-is-not-there.so.1")
    with pytest.raises(DeviceError, match="no NVIDIA driver is installed"):
        devices.open_device()


def test_device_names():
    assert gpu.parse_device("cpu") is None
    assert gpu.parse_device("cuda") == 0
    assert gpu.parse_device("cuda:3") == 3
    for text in ("gpu", "cuda:", "cuda:x", "CPU", ""):
        with pytest.raises(UsageError, match="unknown device"):
            gpu.parse_device(text)


def test_neither_package(with_driver):
    with_driver.setattr(devices, "_has", lambda module: False)
    with pytest.raises(MissingDependency, match=r"pip install 'cuda-python==13\.\*'"):
        devices.open_device()


class Runtime:
    """`cuda.bindings.runtime`: every call succeeds with values of the right kind."""

    cudaMemcpyKind = SimpleNamespace(cudaMemcpyHostToDevice=1, cudaMemcpyDeviceToHost=2)
    cudaStreamCaptureMode = SimpleNamespace(cudaStreamCaptureModeThreadLocal=1)
    values: ClassVar = {
        "cudaMemGetInfo": (3 << 20, 8 << 30),
        "cudaMalloc": (4096,),
        "cudaStreamCreateWithFlags": (77,),
        "cudaEventCreate": (78,),
        "cudaEventElapsedTime": (1.5,),
        "cudaStreamEndCapture": (79,),
        "cudaGraphInstantiate": (80,),
        "cudaGetErrorName": (b"cudaErrorSomething",),
        "cudaGetErrorString": (b"something happened",),
    }

    def __init__(self):
        self.calls, self.fails = [], {}
        self.host = np.zeros(64, np.uint8)

    def __getattr__(self, name):
        def call(*args):
            self.calls.append((name, args))
            status = self.fails.pop(name, 0)
            if name == "cudaHostAlloc":
                return status, self.host.ctypes.data
            return (status, *self.values.get(name, ()))

        return call


@pytest.fixture
def cuda(monkeypatch):
    runtime = Runtime()
    monkeypatch.setattr("m2f.runtime.device_cuda._runtime", lambda: runtime)
    return runtime


def use_everything(device):
    """Each function of `Device`, once."""
    stream, event, start = (
        device.create_stream(),
        device.create_event(),
        device.create_event(),
    )
    pointer, pinned = device.allocate(64), device.allocate_pinned(64)
    pinned[:] = 7
    device.record(start, stream)
    device.upload(pointer, pinned, stream)
    device.download(pinned, pointer, stream)
    device.begin_capture(stream)
    graph = device.end_capture(stream)
    device.launch(graph, stream)
    device.record(event, stream)
    device.wait(stream, event)
    device.wait_for(event)
    device.synchronize(stream)
    assert device.milliseconds(start, event) == 1.5
    assert device.free_bytes() == 3 << 20
    device.destroy_graph(graph)
    device.free(pointer)
    device.free_pinned(pinned)
    device.destroy_event(event)
    device.destroy_stream(stream)


def test_cuda_python(cuda):
    device = CudaDevice(CARD)
    assert (device.name, device.compute, device.dlpack) == ("Test RTX 1", 89, (2, 1))
    use_everything(device)
    assert cuda.calls[0] == ("cudaSetDevice", (1,))
    host = cuda.host.ctypes.data
    assert ("cudaMemcpyAsync", (4096, host, 64, 1, 77)) in cuda.calls
    assert ("cudaMemcpyAsync", (host, 4096, 64, 2, 77)) in cuda.calls
    assert ("cudaGraphDestroy", (79,)) in cuda.calls
    assert ("cudaGraphExecDestroy", (80,)) in cuda.calls
    assert cuda.host[0] == 7


def test_cuda_python_has_these_functions_with_these_arguments(cuda):
    """Against the package itself, which can be imported without a driver."""
    real = pytest.importorskip("cuda.bindings.runtime")
    use_everything(CudaDevice(CARD))
    for name, args in cuda.calls:
        inspect.signature(getattr(real, name)).bind(*args)
    for group in ("cudaMemcpyKind", "cudaStreamCaptureMode"):
        for name, value in vars(getattr(Runtime, group)).items():
            assert int(getattr(getattr(real, group), name)) == value
    assert int(real.cudaError_t.cudaErrorMemoryAllocation) == 2
    assert real.cudaHostAllocPortable == 1
    assert real.cudaStreamNonBlocking == 1


def test_cuda_python_out_of_memory(cuda):
    device = CudaDevice(CARD)
    cuda.fails["cudaMalloc"] = 2
    with pytest.raises(
        DeviceError, match="not enough memory: 5 MiB are needed, 3 MiB are free"
    ):
        device.allocate(5 << 20)


def test_cuda_python_that_fails(cuda):
    device = CudaDevice(CARD)
    cuda.fails["cudaStreamSynchronize"] = 700
    with pytest.raises(DeviceError, match=r"failed: something happened \(cudaErrorSomething\)"):
        device.synchronize(77)


def test_cuda_python_without_a_gpu():
    """For real, where there is none."""
    runtime = pytest.importorskip("cuda.bindings.runtime")
    if int(runtime.cudaGetDeviceCount()[0]) == 0:
        pytest.skip("there is a GPU")
    with pytest.raises(DeviceError, match=r"cudaSetDevice failed: .*driver"):
        CudaDevice(CARD)


class PyCudaError(Exception):
    pass


class PyCudaMemoryError(PyCudaError):
    pass


class PyCudaThing:
    """A stream, an event, a graph: all of pycuda's methods that are used, with their names."""

    handle = 0x5500

    def __init__(self, calls):
        self.calls = calls

    def __getattr__(self, name):
        if name not in PYCUDA_METHODS:
            raise AttributeError(name)

        def call(*args):
            self.calls.append(name)
            return 1.5 if name == "time_since" else self

        return call


PYCUDA_METHODS = {
    "synchronize",
    "wait_for_event",
    "record",
    "time_since",
    "push",
    "free",
}


@pytest.fixture
def pycuda(with_driver):
    monkeypatch = with_driver
    calls = []
    thing = lambda *a: PyCudaThing(calls)  # noqa: E731
    module = SimpleNamespace(
        calls=calls,
        init=lambda: None,
        Device=lambda i: SimpleNamespace(retain_primary_context=thing),
        Stream=thing,
        Event=thing,
        Error=PyCudaError,
        MemoryError=PyCudaMemoryError,
        mem_get_info=lambda: (3 << 20, 8 << 30),
        mem_alloc=lambda n: type(
            "M", (), {"__int__": lambda s: 4096, "free": lambda s: None}
        )(),
        pagelocked_empty=lambda n, dtype: np.empty(n, dtype),
        memcpy_htod_async=lambda *a: calls.append("up"),
        memcpy_dtoh_async=lambda *a: calls.append("down"),
    )
    package = SimpleNamespace(driver=module)
    monkeypatch.setitem(__import__("sys").modules, "pycuda", package)
    monkeypatch.setitem(__import__("sys").modules, "pycuda.driver", module)
    return module


def test_pycuda(pycuda):
    device = PyCudaDevice(CARD)
    use_everything(device)
    for name in ("up", "down", "record", "wait_for_event", "synchronize"):
        assert name in pycuda.calls


def test_pycuda_without_graphs(pycuda, with_driver):
    device = PyCudaDevice(CARD)
    with_driver.setenv("STAND_IN_FAILS", "cuStreamBeginCapture_v2")
    with pytest.raises(DeviceError, match="cuStreamBeginCapture_v2 failed with CUDA error 100"):
        device.begin_capture(device.create_stream())


def test_pycuda_that_fails(pycuda):
    device = PyCudaDevice(CARD)

    def refuse(*args):
        raise PyCudaMemoryError("cuMemAlloc failed: out of memory")

    pycuda.mem_alloc = refuse
    with pytest.raises(DeviceError, match="5 MiB are needed, 3 MiB are free"):
        device.allocate(5 << 20)

    def broken(*args):
        raise PyCudaError("an illegal memory access")

    pycuda.memcpy_htod_async = broken
    stream = device.create_stream()
    with pytest.raises(DeviceError, match="memcpy_htod_async failed: an illegal"):
        device.upload(4096, np.zeros(4, np.uint8), stream)


def test_pycuda_is_the_second_choice(pycuda, with_driver):
    with_driver.setattr(devices, "_has", lambda module: module == "pycuda")
    assert isinstance(devices.open_device(), PyCudaDevice)
