"""Post-processing where the network's masks lie: a label map comes down, and not the masks.

`DeviceLibrary` is `native.Library` for masks on a GPU. What the host has decided (which queries
take part, with which scores) goes up, a kernel runs behind the network on its stream, and the
answer comes down, all through memory that the slot has had from the start. What the kernels
do not take the CPU does, after all, with the masks it then needs.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable
from ctypes import c_int32, c_int64, c_void_p
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from m2f.errors import DeviceError
from m2f.plugins import library as files
from m2f.runtime import native
from m2f.runtime.buffers import Shape, Slot, Tensor, TensorSpec
from m2f.runtime.device import DLPACK_CUDA, Device
from m2f.runtime.native import Float, Library, Masks, Route, Size

VERSION = 3
"""Of the C interface of ``plugins/images/cuda_c_api.cc``."""

CHOSEN, WEIGHTS, COUNTS, RESULT = "chosen", "weights", "counts", "result"

_PIXELS_OF_A_MASK_PIXEL = 16
_LARGEST_SIDE = 1 << 24  # positions are float32
_UNIT = 2.0**-24  # of the device's sums of probabilities

# Of cudaError_t, what says that nothing was launched and no more: an invalid value (more than
# a grid or shared memory takes), a driver too old, no code for this GPU, or in no known form.
_REFUSED = frozenset({1, 35, 209, 222})


@dataclass(frozen=True, slots=True)
class DeviceMasks:
    """One image's mask logits on a device, float32 [Q, h, w]."""

    pointer: int
    shape: tuple[int, int, int]

    @property
    def size(self) -> int:
        """Elements."""
        return math.prod(self.shape)


@dataclass(frozen=True, slots=True)
class Kernels:
    """A native library that has the device's kernels.

    Attributes:
        path: Of the library, for what the host does.
        library: It, or whatever else has its functions ``m2f_cuda_*``.
    """

    path: Path
    library: Any

    def launch(self, device: Device, name: str, *arguments: Any, stream: int) -> bool:
        """Whether a kernel was put on a stream.

        Raises:
            DeviceError: The GPU failed.
        """
        function: Callable[..., int] = getattr(self.library, f"m2f_cuda_{name}")
        status = function(*arguments, c_void_p(stream))
        if status and status not in _REFUSED:
            raise DeviceError(
                f"{device.name}: m2f_cuda_{name} failed: CUDA error {status}; see "
                "`nvidia-smi` and `m2f doctor`"
            )
        return status == 0


def kernels(device: Device) -> Kernels | None:
    """The native library's for a device; None if it was built without CUDA, or is not there."""
    path = files.find()
    if device.dlpack[0] != DLPACK_CUDA or path is None or native.library() is None:
        return None
    library = ctypes.CDLL(str(path))
    version = getattr(library, "m2f_cuda_images_version", None)
    return Kernels(path, library) if version is not None and version() == VERSION else None


def room(class_logits: TensorSpec, mask_logits: TensorSpec) -> tuple[TensorSpec, ...]:
    """What a slot needs for one image at a time.

    A result may take as much as a label map of the largest input, or as the masks: if it is
    larger, the masks are no more to bring down.
    """
    _, queries, classes = class_logits.largest
    map_bytes = 4 * _PIXELS_OF_A_MASK_PIXEL * math.prod(mask_logits.largest[2:])
    mask_bytes = 4 * math.prod(mask_logits.largest[1:])
    wide, single, byte = np.dtype(np.int64), np.dtype(np.float32), np.dtype(np.uint8)
    return (
        TensorSpec(name=CHOSEN, dtype=wide, largest=(queries,)),
        TensorSpec(name=WEIGHTS, dtype=single, largest=(queries * classes,)),
        TensorSpec(name=COUNTS, dtype=wide, largest=(3 * queries,)),
        TensorSpec(name=RESULT, dtype=byte, largest=(max(map_bytes, mask_bytes),)),
    )


class DeviceLibrary(Library):
    """The functions of `Library`, of masks that are `DeviceMasks` in one slot.

    Each waits for its answer, which is the caller's.
    """

    def __init__(
        self,
        found: Kernels,
        device: Device,
        slot: Slot,
        masks: Tensor,
        *,
        threads: int | None = None,
    ) -> None:
        """Of a batch.

        Args:
            found: What runs.
            device: Where.
            slot: Has `room`.
            masks: Where the batch's mask logits are, and where they come down to.
            threads: CPU cores for what the host does; all unless given.
        """
        super().__init__(found.path, threads=threads)
        self._kernels, self._device, self._slot = found, device, slot
        self._staging = masks

    def panoptic(
        self,
        masks: Masks,
        kept: NDArray[np.int64],
        scores: Float,
        route: Route,
        *,
        threshold: float,
        is_weighted: bool,
        as_probabilities: bool,
    ) -> tuple[NDArray[np.uint16], NDArray[np.int64]]:
        """See `Library.panoptic`."""
        rules = native._Rules(threshold, is_weighted, as_probabilities)
        job = _Job("panoptic", masks, kept, route, weights=scores, rules=(ctypes.byref(rules),))
        found = self._answer(job, route.output, np.uint16, counters=(3,))
        if found is not None:
            return found
        return super().panoptic(
            self._brought_down(masks),
            kept,
            scores,
            route,
            threshold=threshold,
            is_weighted=is_weighted,
            as_probabilities=as_probabilities,
        )

    def semantic(
        self, masks: Masks, probabilities: Float, route: Route, *, sums_first: bool
    ) -> NDArray[np.int32]:
        """See `Library.semantic`."""
        everyone = np.arange(masks.shape[0])
        rules = (c_int64(probabilities.shape[1]), c_int32(sums_first))
        job = _Job("semantic", masks, everyone, route, weights=probabilities, rules=rules)
        found = self._answer(job, route.output, np.int32, counters=())
        if found is not None:
            labels: NDArray[np.int32] = found[0]
            return labels
        here = self._brought_down(masks)
        return super().semantic(here, probabilities, route, sums_first=sums_first)

    def instance(
        self, masks: Masks, chosen: NDArray[np.int64], route: Route
    ) -> tuple[NDArray[np.uint8], NDArray[np.float64], NDArray[np.int64]]:
        """See `Library.instance`."""
        shape = (len(chosen), route.output[0], -(-route.output[1] // 8))
        job = _Job("instance", masks, chosen, route)
        found = self._answer(job, shape, np.uint8, counters=(1, 1))
        if found is None:
            return super().instance(self._brought_down(masks), chosen, route)
        bits, (total, inside) = found
        return bits, total * _UNIT, inside

    def count_not_finite(self, values: Masks) -> int:
        """See `Library.count_not_finite`; of the host's arrays, too."""
        if isinstance(values, DeviceMasks):
            counts, stream = self._slot.tensors[COUNTS], self._slot.stream
            arguments = (c_void_p(values.pointer), c_int64(values.size))
            if self._launch("count_not_finite", *arguments, c_void_p(counts.pointer)):
                self._device.download(counts.bytes((1,)), counts.pointer, stream)
                self._device.synchronize(stream)
                return int(counts.array((1,))[0])
            values = self._brought_down(values)
        return super().count_not_finite(values)

    def _answer(
        self, job: _Job, shape: Shape, dtype: type[np.generic], *, counters: tuple[int, ...]
    ) -> tuple[NDArray[Any], NDArray[np.int64]] | None:
        """A kernel's result and counts, or None if it cannot do this.

        Args:
            job: What to do.
            shape: Of the result.
            dtype: Of the result.
            counters: Of counts [n] each, how many follow at each of the last arguments.
        """
        tensors, stream, n = self._slot.tensors, self._slot.stream, len(job.index)
        counts, result = tensors[COUNTS], tensors[RESULT]
        nbytes = math.prod(shape) * np.dtype(dtype).itemsize
        if nbytes > result.spec.nbytes or not job.fits():
            return None
        weights = [] if job.weights is None else [self._up(WEIGHTS, job.weights)]
        starts = [8 * n * sum(counters[:i]) for i in range(len(counters))]
        size = job.route.geometry(job.masks.shape[1:])
        was_launched = self._launch(
            job.name,
            ctypes.byref(size),
            c_void_p(job.masks.pointer),
            self._up(CHOSEN, job.index),
            c_int64(n),
            *weights,
            *job.rules,
            c_void_p(result.pointer),
            *(c_void_p(counts.pointer + start) for start in starts),
        )
        if not was_launched:
            return None
        each = (sum(counters), n)
        self._device.download(result.bytes((nbytes,)), result.pointer, stream)
        self._device.download(counts.bytes(each), counts.pointer, stream)
        self._device.synchronize(stream)
        values = result.bytes((nbytes,)).view(dtype).reshape(shape)
        return values.copy(), counts.array(each).copy()

    def _launch(self, name: str, *arguments: Any) -> bool:
        """Whether a kernel was put on the stream."""
        return self._kernels.launch(self._device, name, *arguments, stream=self._slot.stream)

    def _up(self, name: str, values: NDArray[Any]) -> c_void_p:
        tensor = self._slot.tensors[name]
        np.copyto(tensor.array(values.shape), values)
        self._device.upload(tensor.pointer, tensor.bytes(values.shape), self._slot.stream)
        return c_void_p(tensor.pointer)

    def _brought_down(self, masks: DeviceMasks) -> Float:
        memory = self._staging.bytes(masks.shape)
        self._device.download(memory, masks.pointer, self._slot.stream)
        self._device.synchronize(self._slot.stream)
        return self._staging.array(masks.shape)


@dataclass(frozen=True, slots=True)
class _Job:
    """Arguments of a kernel, in the order of its C function.

    Attributes:
        index: Which masks take part.
        weights: Of the queries, where it takes some.
        rules: What follows them.
    """

    name: str
    masks: DeviceMasks
    index: NDArray[np.int64]
    route: Route
    weights: Float | None = None
    rules: tuple[Any, ...] = ()

    def fits(self) -> bool:
        """Whether sizes are as kernels take for granted: what ``plugins/images/plan.cc`` asks.

        If not, the CPU says what is wrong.
        """
        queries, *mask = self.masks.shape
        route = self.route
        extent: tuple[float, float] | Size = route.extent or (mask[0], mask[1])
        axes = zip(mask, route.middle, route.valid, route.output, extent, strict=True)
        return all(
            1 <= valid <= middle
            and m >= 1
            and output >= 1
            and part > 0
            and max(m, middle, output) <= _LARGEST_SIDE
            for m, middle, valid, output, part in axes
        ) and bool(((self.index >= 0) & (self.index < queries)).all())
