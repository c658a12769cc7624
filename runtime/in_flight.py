"""A batch on its way through a GPU, and the memory it holds."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from m2f.engine import Extent
from m2f.errors import UsageError
from m2f.runtime.buffers import Shape, Slot
from m2f.runtime.device import Device
from m2f.runtime.device_array import DeviceArray
from m2f.runtime.native import Library, Masks
from m2f.runtime.native_cuda import DeviceLibrary, DeviceMasks, Kernels
from m2f.runtime.trt_engine import CLASS_LOGITS, MASK_LOGITS, OUTPUTS

Logits = tuple[NDArray[Any], NDArray[Any]]


@dataclass(slots=True)
class Plan:
    """How one size runs in one slot.

    Attributes:
        runs: How often it ran without a graph.
        graph: What replaces running it.
    """

    context: Any
    shapes: dict[str, Shape]
    runs: int = 0
    graph: int | None = None


class Lane:
    """A slot, and the plans that use its memory."""

    def __init__(self, slot: Slot) -> None:
        self.slot = slot
        self.plans: OrderedDict[tuple[Extent, str], Plan] = OrderedDict()
        self.leases = 0


class InFlight:
    """A batch on its way. Use it in a `with` block, or call `release`.

    Its outputs lie in the slot's memory, which another batch takes after the release.
    """

    def __init__(
        self,
        device: Device,
        lane: Lane,
        shapes: dict[str, Shape],
        give_back: Callable[[Lane], None],
        *,
        kernels: Kernels | None = None,
        source: DeviceArray | None = None,
    ) -> None:
        """Of a batch that was started.

        Args:
            device: Where it runs.
            lane: What it runs in.
            shapes: Of its outputs.
            give_back: Takes the lane, once for each lease.
            kernels: Post-process its masks, which therefore stay on the device.
            source: Somebody else's memory, which must outlive the batch.
        """
        self._device, self._lane, self._shapes = device, lane, shapes
        self._give_back, self._kernels, self._source = give_back, kernels, source
        self._is_held = True

    def logits(self) -> Logits:
        """Waits; class logits and mask logits, without a copy on the host.

        Raises:
            DeviceError: The GPU failed.
            UsageError: The batch was released.
        """
        self._check_held()
        slot, device = self._lane.slot, self._device
        if self._kernels is not None:
            masks = slot.tensors[MASK_LOGITS]
            device.download(masks.bytes(self._shapes[MASK_LOGITS]), masks.pointer, slot.stream)
            device.record(slot.done, slot.stream)
        device.wait_for(slot.done)
        first, second = (slot.tensors[name].array(self._shapes[name]) for name in OUTPUTS)
        return first, second

    def outputs(
        self, threads: int | None
    ) -> tuple[NDArray[Any], Sequence[Masks], Library | None]:
        """See `m2f.runtime.backend.Flight.outputs`.

        Raises:
            DeviceError: The GPU failed.
            UsageError: The batch was released.
        """
        if self._kernels is None:
            class_logits, mask_logits = self.logits()
            return class_logits, list(mask_logits), None
        self._check_held()
        slot = self._lane.slot
        self._device.wait_for(slot.done)
        class_logits = slot.tensors[CLASS_LOGITS].array(self._shapes[CLASS_LOGITS])
        tensor = slot.tensors[MASK_LOGITS]
        n, q, h, w = self._shapes[MASK_LOGITS]
        step = q * h * w * tensor.spec.dtype.itemsize
        masks = [DeviceMasks(tensor.pointer + i * step, (q, h, w)) for i in range(n)]
        native = DeviceLibrary(self._kernels, self._device, slot, tensor, threads=threads)
        return class_logits, masks, native

    def arrays(self) -> tuple[DeviceArray, DeviceArray]:
        """Class logits and mask logits on the device; does not wait, and does not copy.

        Whoever takes one through DLPack holds the slot until they let go of it; with
        `__cuda_array_interface__`, until this batch is released.

        Raises:
            UsageError: The batch was released.
        """
        self._check_held()
        slot, device = self._lane.slot, self._device
        first, second = (
            DeviceArray(
                pointer=slot.tensors[name].pointer,
                shape=self._shapes[name],
                dtype=slot.tensors[name].spec.dtype,
                device=device.dlpack,
                stream=slot.stream,
                ready=lambda stream: device.wait(stream, slot.done),
                lend=self._lend,
                owner=self,
            )
            for name in OUTPUTS
        )
        return first, second

    def release(self) -> None:
        """Gives the slot back; harmless when repeated."""
        if self._is_held:
            self._is_held = False
            self._give_back(self._lane)
            self._source = None

    def __enter__(self) -> InFlight:
        return self

    def __exit__(self, *exception: object) -> None:
        self.release()

    def _check_held(self) -> None:
        if not self._is_held:
            raise UsageError("this batch was released; keep it until its results are used")

    def _lend(self) -> Any:
        self._check_held()
        self._lane.leases += 1
        return lambda: self._give_back(self._lane)
