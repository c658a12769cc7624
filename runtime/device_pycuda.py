"""A GPU through pycuda, which many Jetson and older set-ups have."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np

from m2f import gpu
from m2f.errors import DeviceError, MissingDependency
from m2f.runtime.device import DLPACK_CUDA, Bytes, no_memory

_THREAD_LOCAL = 1
"""CU_STREAM_CAPTURE_MODE_THREAD_LOCAL of CUDA's driver API."""


class PyCudaDevice:
    """See `m2f.runtime.device.Device`.

    pycuda gives objects where CUDA has handles; they are kept here by their handles.
    """

    def __init__(self, card: gpu.Gpu) -> None:
        """Uses the device's primary context, which it shares with TensorRT and PyTorch.

        Raises:
            MissingDependency: The package cannot be used.
            DeviceError: The device cannot be opened.
        """
        try:
            import pycuda.driver as cuda  # type: ignore[import-not-found,unused-ignore]
        except Exception as problem:  # it may fail in its own library, too
            raise MissingDependency(
                f"pycuda is installed but cannot be used ({problem}); run: "
                "pip install cuda-python"
            ) from problem
        self._cuda: Any = cuda
        self._library = ctypes.CDLL(gpu.DRIVER)
        self.name, self.compute = card.name, card.compute
        self.dlpack = (DLPACK_CUDA, card.index)
        self._objects: dict[int, Any] = {}
        self._next = 1
        with self._errors("opening"):
            cuda.init()
            self._context = cuda.Device(card.index).retain_primary_context()
            self._context.push()

    def free_bytes(self) -> int:
        """See `Device`."""
        return int(self._cuda.mem_get_info()[0])

    def allocate(self, nbytes: int) -> int:
        """See `Device`."""
        with self._errors("mem_alloc", wanted=nbytes):
            memory = self._cuda.mem_alloc(nbytes)
        self._objects[int(memory)] = memory
        return int(memory)

    def free(self, pointer: int) -> None:
        """See `Device`."""
        self._objects.pop(pointer).free()

    def allocate_pinned(self, nbytes: int) -> Bytes:
        """See `Device`."""
        with self._errors("pagelocked_empty", wanted=nbytes):
            memory: Bytes = self._cuda.pagelocked_empty(nbytes, np.uint8)
        self._objects[memory.ctypes.data] = memory
        return memory

    def free_pinned(self, memory: Bytes) -> None:
        """See `Device`."""
        del self._objects[memory.ctypes.data]

    def create_stream(self) -> int:
        """See `Device`."""
        stream = self._cuda.Stream()
        self._objects[int(stream.handle)] = stream
        return int(stream.handle)

    def destroy_stream(self, stream: int) -> None:
        """See `Device`."""
        del self._objects[stream]

    def synchronize(self, stream: int) -> None:
        """See `Device`."""
        with self._errors("synchronize"):
            self._objects[stream].synchronize()

    def create_event(self) -> int:
        """See `Device`."""
        return self._keep(self._cuda.Event())

    def destroy_event(self, event: int) -> None:
        """See `Device`."""
        del self._objects[event]

    def record(self, event: int, stream: int) -> None:
        """See `Device`."""
        self._objects[event].record(self._objects[stream])

    def wait(self, stream: int, event: int) -> None:
        """See `Device`."""
        self._objects[stream].wait_for_event(self._objects[event])

    def wait_for(self, event: int) -> None:
        """See `Device`."""
        with self._errors("synchronize"):
            self._objects[event].synchronize()

    def milliseconds(self, start: int, end: int) -> float:
        """See `Device`."""
        return float(self._objects[end].time_since(self._objects[start]))

    def upload(self, pointer: int, memory: Bytes, stream: int) -> None:
        """See `Device`."""
        with self._errors("memcpy_htod_async"):
            self._cuda.memcpy_htod_async(pointer, memory, self._objects[stream])

    def download(self, memory: Bytes, pointer: int, stream: int) -> None:
        """See `Device`."""
        with self._errors("memcpy_dtoh_async"):
            self._cuda.memcpy_dtoh_async(memory, pointer, self._objects[stream])

    def begin_capture(self, stream: int) -> None:
        """See `Device`."""
        self._driver("cuStreamBeginCapture_v2", stream, _THREAD_LOCAL)

    def end_capture(self, stream: int) -> int:
        """See `Device`."""
        graph, runnable = ctypes.c_void_p(), ctypes.c_void_p()
        self._driver("cuStreamEndCapture", stream, ctypes.byref(graph))
        try:
            self._driver("cuGraphInstantiateWithFlags", ctypes.byref(runnable), graph, 0)
        finally:
            self._driver("cuGraphDestroy", graph)
        return runnable.value or 0

    def launch(self, graph: int, stream: int) -> None:
        """See `Device`."""
        self._driver("cuGraphLaunch", graph, stream)

    def destroy_graph(self, graph: int) -> None:
        """See `Device`."""
        self._driver("cuGraphExecDestroy", graph)

    def _driver(self, function: str, *args: Any) -> None:
        """Calls the driver itself for graphs, which pycuda does not know."""
        handles = (ctypes.c_void_p(a) if isinstance(a, int) and a > 0xFF else a for a in args)
        status = getattr(self._library, function)(*handles)
        if status != 0:
            raise DeviceError(
                f"{self.name}: {function} failed with CUDA error {status}; see `nvidia-smi`"
            )

    def _keep(self, thing: Any) -> int:
        """A number for what has no handle; odd, so that it is never an address."""
        self._next += 2
        self._objects[self._next] = thing
        return self._next

    def _errors(self, what: str, *, wanted: int | None = None) -> _Errors:
        return _Errors(self, what, wanted)


class _Errors:
    """Turns pycuda's exceptions into one sentence."""

    def __init__(self, device: PyCudaDevice, what: str, wanted: int | None) -> None:
        self.device, self.what, self.wanted = device, what, wanted

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, problem: BaseException | None, trace: object) -> None:
        cuda = self.device._cuda
        if isinstance(problem, cuda.MemoryError) and self.wanted is not None:
            raise no_memory(
                self.wanted, self.device.free_bytes(), self.device.name
            ) from problem
        if isinstance(problem, cuda.Error):
            raise DeviceError(
                f"{self.device.name}: {self.what} failed: {problem}; see `nvidia-smi` and "
                "`m2f doctor`"
            ) from problem
