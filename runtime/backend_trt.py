"""TensorRT on an NVIDIA GPU: several batches in flight, each size a CUDA graph.

A batch takes a slot (see `buffers`), goes up from pinned memory, through the network and down
again on the slot's stream, and the program goes on meanwhile. The first batch of a size
runs as it is; from the second on, one launch of a graph does all that follows the images.
"""

from __future__ import annotations

import contextlib
import warnings
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from m2f.bundle import Bundle
from m2f.engine import Extent
from m2f.errors import DeviceError, ImageError, ShapeError, UsageError
from m2f.runtime.buffers import Shape, Slot
from m2f.runtime.device import Device
from m2f.runtime.device_array import DeviceArray, device_array
from m2f.runtime.in_flight import InFlight, Lane, Logits, Plan
from m2f.runtime.native_cuda import kernels, room
from m2f.runtime.preprocess import Prepared, Size, assemble
from m2f.runtime.preprocess_cuda import Resizer
from m2f.runtime.trt_engine import (
    CLASS_LOGITS,
    IMAGE,
    IMAGE_SIZE,
    MASK_LOGITS,
    OUTPUTS,
    TrtEngine,
)

DEPTH = 2
"""Batches in flight: while one computes, the host prepares the next or finishes the last."""

SIZES_KEPT = 8
"""Sizes whose contexts and graphs a slot keeps; the least recently used goes first."""


class TrtBackend:
    """Runs a bundle's engine; see `m2f.runtime.backend.Backend`.

    Attributes:
        depth: Batches that may be in flight.
        profile: Sizes the engine takes, which may be fewer than the bundle's.
        resizes: Whether the GPU resizes the images that `submit_images` is given.
    """

    def __init__(
        self,
        engine: Path,
        device: Device,
        *,
        bundle: Bundle | None = None,
        trt: Any | None = None,
        depth: int = DEPTH,
        graphs: bool = True,
    ) -> None:
        """Opens the engine and acquires all memory that any of its sizes needs.

        Args:
            engine: Its file, the record beside it.
            device: The GPU.
            bundle: What the engine must have been built from.
            trt: TensorRT's module; the one the engine is for unless given.
            depth: Batches that may be in flight, each with memory of its own.
            graphs: Capture each size as a CUDA graph.

        Raises:
            EngineError: The engine is damaged, stale, or for another machine.
            DeviceError: There is not enough memory.
            MissingDependency: TensorRT or the plugins are not there.
        """
        if depth < 1:
            raise UsageError(f"at least 1 batch must be in flight, got {depth}")
        self.device, self.depth, self._graphs = device, depth, graphs
        self._engine = TrtEngine(engine, device, bundle=bundle, trt=trt)
        self.name = f"{self._engine.name}, {device.name}"
        specs = (*self._engine.inputs, *self._engine.outputs)
        outputs = {spec.name: spec for spec in self._engine.outputs}
        # Where kernels take masks as they lie, only class logits are brought down.
        is_float = outputs[MASK_LOGITS].dtype == np.float32
        found = kernels(device)
        self._kernels = found if is_float else None
        self._downloads = OUTPUTS if self._kernels is None else (CLASS_LOGITS,)
        if self._kernels is not None:
            specs += room(outputs[CLASS_LOGITS], outputs[MASK_LOGITS])
        self._resizer = None
        if found is not None:
            (image,) = (spec for spec in self._engine.inputs if spec.name == IMAGE)
            self._resizer = Resizer(found, device, image)
            specs += (self._resizer.room,)
        self.resizes = self._resizer is not None
        self.profile = self._engine.sizes.profile
        self.takes_image_size = IMAGE_SIZE in {spec.name for spec in specs}
        self._lanes: list[Lane] = []
        try:
            for _ in range(depth):
                slot = Slot(device, specs, scratch_bytes=self._engine.scratch_bytes)
                self._lanes.append(Lane(slot))
        except BaseException:
            self.close()
            raise
        self._free = deque(self._lanes)

    def warm_up(self, *extents: Extent) -> None:
        """Runs each size as often as it takes to make its graphs, in every slot.

        Args:
            *extents: N, H, W; the size the engine is tuned for unless given.
        """
        for extent in extents or (self._engine.sizes.opt,):
            image = np.zeros((*extent, 3), np.uint8)
            sizes = np.tile(np.array(extent[1:], np.int64), (extent[0], 1))
            for _ in range(2):
                batches = [self.submit(image, sizes) for _ in self._lanes]
                for batch in batches:
                    batch.logits()
                    batch.release()

    def run(self, image: NDArray[np.uint8], image_size: NDArray[np.int64]) -> Logits:
        """Runs a batch; see `m2f.runtime.backend.Backend.run`.

        Raises:
            ShapeError: The engine does not take this size.
            DeviceError: The GPU failed.
            UsageError: The backend was closed, or all slots are in flight.
        """
        with self.submit(image, image_size) as batch:
            class_logits, mask_logits = batch.logits()
            return class_logits.copy(), mask_logits.copy()

    def submit(self, image: NDArray[np.uint8], image_size: NDArray[np.int64]) -> InFlight:
        """Starts a batch and returns at once.

        Args:
            image: [N, H, W, 3], RGB; may be changed when this returns.
            image_size: Valid height and width of each image, [N, 2].

        Raises:
            ShapeError: The engine does not take this size.
            DeviceError: The GPU failed.
            UsageError: The backend was closed, or all slots are in flight.
        """
        extent = self._extent(image.shape)

        def bring_up(slot: Slot) -> None:
            np.copyto(slot.tensors[IMAGE].array((*extent, 3)), image)
            self._upload(slot, IMAGE, (*extent, 3))

        return self._submit(extent, image_size, bring_up)

    def submit_images(
        self, images: Sequence[Prepared], padded: Size, *, threads: int | None = None
    ) -> InFlight:
        """See `m2f.runtime.backend.Pipelined.submit_images`.

        They are resized on the GPU if there are kernels for that, and room (`Resizer`).

        Raises:
            ShapeError: The engine does not take this size.
            DeviceError: The GPU failed.
            UsageError: The backend was closed, or all slots are in flight.
        """
        extent = self._extent((len(images), *padded, 3))

        def bring_up(slot: Slot) -> None:
            if self._resizer is None or not self._resizer.enqueue(slot, images, padded):
                assemble(images, out=slot.tensors[IMAGE].array((*extent, 3)), threads=threads)
                self._upload(slot, IMAGE, (*extent, 3))

        sizes = np.array([image.size for image in images], np.int64)
        return self._submit(extent, sizes, bring_up)

    def submit_array(self, image: Any, image_size: NDArray[np.int64] | None = None) -> InFlight:
        """Starts a batch that is on the GPU already; it is read where it lies.

        Args:
            image: [N, H, W, 3] uint8 in C order, of any library with DLPack or
                `__cuda_array_interface__`. Must not change until the batch is done.
            image_size: As in `submit`; the whole image unless given.

        Raises:
            ImageError: It is not uint8, not in C order, or elsewhere.
        """
        lane = self._take()
        try:
            stream = lane.slot.stream
            source = device_array(image, self.device.dlpack, stream)
            if source.dtype != np.uint8:
                raise ImageError(f"an image must be uint8, got {source.dtype}")
            if source.stream not in (0, stream):
                self.device.record(lane.slot.done, source.stream)
                self.device.wait(stream, lane.slot.done)
            extent = self._extent(source.shape)
            if image_size is None:
                image_size = np.tile(np.array(extent[1:], np.int64), (extent[0], 1))
            self._stage_size(lane, extent, image_size)
            plan = self._plan(lane, extent, "elsewhere")
            self._engine.set_address(plan.context, IMAGE, source.pointer)
            self._enqueue(lane, plan, extent)
            self.device.record(lane.slot.done, stream)
        except BaseException:
            self._return(lane)
            raise
        return self._in_flight(lane, plan, source)

    def close(self) -> None:
        """Waits for what is in flight and frees everything."""
        lanes, self._lanes, self._free = self._lanes, [], deque()
        for lane in lanes:
            with contextlib.suppress(DeviceError):  # a broken device is left all the same
                self.device.synchronize(lane.slot.stream)
            while lane.plans:
                self._drop(lane.plans.popitem()[1])
            lane.slot.close()
        if lanes:
            self._engine.close()

    def __enter__(self) -> TrtBackend:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _submit(
        self, extent: Extent, image_size: NDArray[np.int64], bring_up: Callable[[Slot], None]
    ) -> InFlight:
        """Starts a batch whose images ``bring_up`` puts into the slot's input."""
        lane = self._take()
        try:
            plan = self._plan(lane, extent, "slot")
            self._stage_size(lane, extent, image_size)
            bring_up(lane.slot)
            self._start(lane, plan, extent)
            self.device.record(lane.slot.done, lane.slot.stream)
        except BaseException:
            self._return(lane)
            raise
        return self._in_flight(lane, plan)

    def _in_flight(self, lane: Lane, plan: Plan, source: DeviceArray | None = None) -> InFlight:
        return InFlight(
            self.device, lane, plan.shapes, self._return, kernels=self._kernels, source=source
        )

    def _extent(self, shape: Shape) -> Extent:
        if len(shape) != 4 or shape[3] != 3:
            raise ShapeError(f"a batch is [N, H, W, 3], got {list(shape)}")
        extent = (shape[0], shape[1], shape[2])
        self._engine.check_extent(extent)
        return extent

    def _take(self) -> Lane:
        if not self._lanes:
            raise UsageError("the backend was closed; load the bundle again")
        if not self._free:
            raise UsageError(
                f"{self.depth} batches are in flight, which is all there is room for; release "
                "the oldest first, or load with a larger depth"
            )
        lane = self._free.popleft()
        lane.leases = 1
        return lane

    def _return(self, lane: Lane) -> None:
        lane.leases -= 1
        if lane.leases == 0 and lane in self._lanes:
            # What is still on the stream comes before what the next batch puts there, but
            # the host's memory is written at once.
            self.device.synchronize(lane.slot.stream)
            self._free.append(lane)

    def _stage_size(self, lane: Lane, extent: Extent, image_size: NDArray[np.int64]) -> None:
        if self.takes_image_size:
            np.copyto(lane.slot.tensors[IMAGE_SIZE].array((extent[0], 2)), image_size)

    def _plan(self, lane: Lane, extent: Extent, source: str) -> Plan:
        """The plan for a size, made if need be; ``source`` is where the network reads."""
        key = (extent, source)
        if key not in lane.plans:
            if len(lane.plans) == SIZES_KEPT:
                self._drop(lane.plans.popitem(last=False)[1])
            context = self._engine.context(lane.slot, extent)
            lane.plans[key] = Plan(context, self._engine.output_shapes(context))
        lane.plans.move_to_end(key)
        return lane.plans[key]

    def _drop(self, plan: Plan) -> None:
        if plan.graph is not None:
            self.device.destroy_graph(plan.graph)
        plan.context = None

    def _start(self, lane: Lane, plan: Plan, extent: Extent) -> None:
        stream = lane.slot.stream
        if plan.graph is None and self._graphs and plan.runs == 1:
            self._capture(lane, plan, extent)
        if plan.graph is not None:
            self.device.launch(plan.graph, stream)
            return
        self._enqueue(lane, plan, extent)
        plan.runs += 1

    def _capture(self, lane: Lane, plan: Plan, extent: Extent) -> None:
        """After one run, which TensorRT needs to set itself up for a size."""
        stream = lane.slot.stream
        try:
            self.device.begin_capture(stream)
            self._enqueue(lane, plan, extent)
            plan.graph = self.device.end_capture(stream)
        except DeviceError as problem:
            with contextlib.suppress(DeviceError):
                self.device.end_capture(stream)
            self._graphs = False
            warnings.warn(
                f"{self._engine.path.name} cannot be captured as a CUDA graph ({problem}); "
                "it runs without, which is slower for small images",
                stacklevel=5,
            )

    def _enqueue(self, lane: Lane, plan: Plan, extent: Extent) -> None:
        """Through the network, and down."""
        self._upload(lane.slot, IMAGE_SIZE, (extent[0], 2))
        self._engine.enqueue(plan.context, lane.slot.stream)
        for name in self._downloads:
            tensor = lane.slot.tensors[name]
            memory = tensor.bytes(plan.shapes[name])
            self.device.download(memory, tensor.pointer, lane.slot.stream)

    def _upload(self, slot: Slot, name: str, shape: Shape) -> None:
        tensor = slot.tensors.get(name)
        if tensor is not None:
            self.device.upload(tensor.pointer, tensor.bytes(shape), slot.stream)
