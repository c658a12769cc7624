"""A GPU as the runtime needs it: memory, streams, events, copies and graphs, and no more.

Everything is an integer handle, as in CUDA's C interface, and everything on a stream returns
before it is done. Two packages can serve (`device_cuda`, `device_pycuda`); in tests a
stand-in does, which checks every call.
"""

from __future__ import annotations

import importlib.util
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from m2f import gpu
from m2f.errors import DeviceError, MissingDependency

Bytes = NDArray[np.uint8]

DLPACK_CUDA = 2
"""kDLCUDA of dlpack.h."""


class Device(Protocol):
    """One GPU, opened."""

    @property
    def name(self) -> str:
        """As the driver calls it."""

    @property
    def compute(self) -> int:
        """Compute capability times ten."""

    @property
    def dlpack(self) -> tuple[int, int]:
        """DLPack's device type and number."""

    def free_bytes(self) -> int:
        """Memory not in use by anybody."""

    def allocate(self, nbytes: int) -> int:
        """Device memory, aligned to 256 bytes.

        Raises:
            DeviceError: There is not so much.
        """

    def free(self, pointer: int) -> None:
        """Gives `allocate`'s memory back."""

    def allocate_pinned(self, nbytes: int) -> Bytes:
        """Host memory that copies to and from the device can run beside the program."""

    def free_pinned(self, memory: Bytes) -> None:
        """Gives `allocate_pinned`'s memory back."""

    def create_stream(self) -> int:
        """A queue whose entries run one after the other."""

    def destroy_stream(self, stream: int) -> None:
        """Lets go of a stream."""

    def synchronize(self, stream: int) -> None:
        """Waits until a stream is empty.

        Raises:
            DeviceError: Something on it failed.
        """

    def create_event(self) -> int:
        """A mark to put on streams."""

    def destroy_event(self, event: int) -> None:
        """Lets go of an event."""

    def record(self, event: int, stream: int) -> None:
        """Puts a mark behind all that is on a stream."""

    def wait(self, stream: int, event: int) -> None:
        """Makes a stream wait for a mark."""

    def wait_for(self, event: int) -> None:
        """Waits, here, for a mark.

        Raises:
            DeviceError: Something before it failed.
        """

    def milliseconds(self, start: int, end: int) -> float:
        """Between two marks that have passed."""

    def upload(self, pointer: int, memory: Bytes, stream: int) -> None:
        """Copies pinned memory to the device."""

    def download(self, memory: Bytes, pointer: int, stream: int) -> None:
        """Copies from the device to pinned memory."""

    def begin_capture(self, stream: int) -> None:
        """Notes what follows on a stream instead of running it."""

    def end_capture(self, stream: int) -> int:
        """A graph of what was noted."""

    def launch(self, graph: int, stream: int) -> None:
        """Runs a graph, with the addresses it was noted with."""

    def destroy_graph(self, graph: int) -> None:
        """Lets go of a graph."""


def open_device(index: int = 0) -> Device:
    """A GPU, through whichever package is installed.

    Raises:
        DeviceError: There is no driver, or no such GPU.
        MissingDependency: Neither package is installed.
    """
    found = gpu.gpu(index)
    if _has("cuda.bindings") or _has("cuda.cudart"):
        from m2f.runtime.device_cuda import CudaDevice

        return CudaDevice(found)
    if _has("pycuda"):
        from m2f.runtime.device_pycuda import PyCudaDevice

        return PyCudaDevice(found)
    raise MissingDependency(
        "neither cuda-python nor pycuda is installed; run: pip install "
        f"'cuda-python=={found.driver.split('.')[0]}.*'"
    )


def no_memory(wanted: int, free: int, what: str) -> DeviceError:
    """The error for memory that is not there."""
    return DeviceError(
        f"{what} has not enough memory: {wanted / 2**20:.0f} MiB are needed, "
        f"{free / 2**20:.0f} MiB are free; use smaller sizes or batches (`m2f build --max`), "
        "fewer images in flight, or end what else runs there"
    )


def pinned_view(address: int, nbytes: int) -> Bytes:
    """An array over memory at an address."""
    import ctypes

    kind: Any = ctypes.c_uint8 * nbytes
    return np.frombuffer(kind.from_address(address), np.uint8)


def _has(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False
