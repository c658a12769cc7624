"""A GPU through NVIDIA's cuda-python."""

from __future__ import annotations

import importlib
from typing import Any

from m2f.errors import DeviceError, MissingDependency
from m2f.gpu import Gpu
from m2f.runtime.device import DLPACK_CUDA, Bytes, no_memory, pinned_view

# From CUDA's runtime API: cudaError_t, cudaHostAlloc's and cudaStreamCreate's flags.
_OUT_OF_MEMORY = 2
_PORTABLE = 1
_NON_BLOCKING = 1


class CudaDevice:
    """See `m2f.runtime.device.Device`."""

    def __init__(self, gpu: Gpu) -> None:
        """Makes it the current one of this thread.

        Raises:
            MissingDependency: The package cannot be used.
            DeviceError: The device cannot be opened.
        """
        self._cuda = _runtime()
        self.name, self.compute = gpu.name, gpu.compute
        self.dlpack = (DLPACK_CUDA, gpu.index)
        self._call("cudaSetDevice", gpu.index)

    def free_bytes(self) -> int:
        """See `Device`."""
        return int(self._call("cudaMemGetInfo")[0])

    def allocate(self, nbytes: int) -> int:
        """See `Device`."""
        return int(self._call("cudaMalloc", nbytes, wanted=nbytes))

    def free(self, pointer: int) -> None:
        """See `Device`."""
        self._call("cudaFree", pointer)

    def allocate_pinned(self, nbytes: int) -> Bytes:
        """See `Device`."""
        address = int(self._call("cudaHostAlloc", nbytes, _PORTABLE, wanted=nbytes))
        return pinned_view(address, nbytes)

    def free_pinned(self, memory: Bytes) -> None:
        """See `Device`."""
        self._call("cudaFreeHost", memory.ctypes.data)

    def create_stream(self) -> int:
        """See `Device`."""
        return int(self._call("cudaStreamCreateWithFlags", _NON_BLOCKING))

    def destroy_stream(self, stream: int) -> None:
        """See `Device`."""
        self._call("cudaStreamDestroy", stream)

    def synchronize(self, stream: int) -> None:
        """See `Device`."""
        self._call("cudaStreamSynchronize", stream)

    def create_event(self) -> int:
        """See `Device`."""
        return int(self._call("cudaEventCreate"))

    def destroy_event(self, event: int) -> None:
        """See `Device`."""
        self._call("cudaEventDestroy", event)

    def record(self, event: int, stream: int) -> None:
        """See `Device`."""
        self._call("cudaEventRecord", event, stream)

    def wait(self, stream: int, event: int) -> None:
        """See `Device`."""
        self._call("cudaStreamWaitEvent", stream, event, 0)

    def wait_for(self, event: int) -> None:
        """See `Device`."""
        self._call("cudaEventSynchronize", event)

    def milliseconds(self, start: int, end: int) -> float:
        """See `Device`."""
        return float(self._call("cudaEventElapsedTime", start, end))

    def upload(self, pointer: int, memory: Bytes, stream: int) -> None:
        """See `Device`."""
        kind = self._cuda.cudaMemcpyKind.cudaMemcpyHostToDevice
        self._call("cudaMemcpyAsync", pointer, memory.ctypes.data, memory.nbytes, kind, stream)

    def download(self, memory: Bytes, pointer: int, stream: int) -> None:
        """See `Device`."""
        kind = self._cuda.cudaMemcpyKind.cudaMemcpyDeviceToHost
        self._call("cudaMemcpyAsync", memory.ctypes.data, pointer, memory.nbytes, kind, stream)

    def begin_capture(self, stream: int) -> None:
        """See `Device`."""
        mode = self._cuda.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        self._call("cudaStreamBeginCapture", stream, mode)

    def end_capture(self, stream: int) -> int:
        """See `Device`."""
        graph = self._call("cudaStreamEndCapture", stream)
        try:
            return int(self._call("cudaGraphInstantiate", graph, 0))
        finally:
            self._call("cudaGraphDestroy", graph)

    def launch(self, graph: int, stream: int) -> None:
        """See `Device`."""
        self._call("cudaGraphLaunch", graph, stream)

    def destroy_graph(self, graph: int) -> None:
        """See `Device`."""
        self._call("cudaGraphExecDestroy", graph)

    def _call(self, function: str, *args: Any, wanted: int | None = None) -> Any:
        """Calls CUDA; gives what comes after the status: nothing, a value or a tuple."""
        status, *values = getattr(self._cuda, function)(*args)
        if int(status) == _OUT_OF_MEMORY and wanted is not None:
            raise no_memory(wanted, self.free_bytes(), self.name)
        if int(status) != 0:
            _, name = self._cuda.cudaGetErrorName(status)
            _, text = self._cuda.cudaGetErrorString(status)
            raise DeviceError(
                f"{self.name}: {function} failed: {_text(text)} ({_text(name)}); see "
                "`nvidia-smi` and `m2f doctor`"
            )
        return values[0] if len(values) == 1 else tuple(values)


def _runtime() -> Any:
    for name in ("cuda.bindings.runtime", "cuda.cudart"):  # since 12.8, and before
        try:
            return importlib.import_module(name)
        except ImportError as failure:
            problem = failure
    raise MissingDependency(
        f"cuda-python is installed but cannot be used ({problem}); run: "
        "pip install --upgrade cuda-python"
    )


def _text(value: Any) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)
