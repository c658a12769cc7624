"""A TensorRT engine on a GPU: opened, asked for its inputs and outputs, given contexts."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import numpy as np

from m2f.bundle import Bundle
from m2f.engine import (
    EngineRecord,
    Extent,
    Sizes,
    check_file,
    check_fits,
    check_model,
    engines,
    read_record,
)
from m2f.errors import (
    DeviceError,
    EngineError,
    MissingDependency,
    MissingFile,
    ShapeError,
)
from m2f.files import replacing
from m2f.plugins import trt as plugins
from m2f.runtime.buffers import Shape, Slot, TensorSpec
from m2f.runtime.device import Device

IMAGE, IMAGE_SIZE = "image", "image_size"
CLASS_LOGITS, MASK_LOGITS = "class_logits", "mask_logits"
OUTPUTS = (CLASS_LOGITS, MASK_LOGITS)


def find_engine(bundle: Bundle, device: Device, *, target: str | None = None) -> Path:
    """The newest engine of a bundle that fits this machine.

    Args:
        bundle: Where to look.
        device: The GPU to run on.
        target: Only "tensorrt" or "tensorrt-rtx"; either unless given.

    Raises:
        MissingFile: There is none for this target.
        EngineError: There are some, and none fits; says why the newest does not.
        MissingDependency: The newest is for a TensorRT that is not installed.
    """
    first: EngineError | MissingDependency | None = None
    for path in engines(bundle):
        try:
            record = read_record(path)
            if target is None or record.key.target == target:
                check(path, record, device, bundle)
                return path
        except (EngineError, MissingDependency) as problem:
            first = first or problem
    if first is not None:
        raise first
    of = f" of {target}" if target else ""
    raise MissingFile(f"{bundle.path}: has no engine{of}; run: m2f build {bundle.path}")


def check(
    path: Path,
    record: EngineRecord,
    device: Device,
    bundle: Bundle | None,
    trt: Any | None = None,
) -> None:
    """Compares an engine with the machine, and with its bundle if there is one.

    Raises:
        EngineError: It does not fit.
        MissingDependency: The TensorRT it is for is not installed.
    """
    module = plugins.load(record.key.target) if trt is None else trt
    if bundle is not None:
        check_model(path, record.key, bundle)
    check_fits(
        path,
        record.key,
        tensorrt=module.__version__,
        system=plugins.system(),
        gpu=device.name,
        compute=device.compute,
    )


class TrtEngine:
    """One engine, deserialised.

    Attributes:
        record: What it was built from.
        sizes: Input sizes it takes, read from the engine itself.
        inputs: Each at its largest.
        outputs: Each at its largest.
        scratch_bytes: Device memory its layers need, whatever the size.
    """

    def __init__(
        self,
        path: Path,
        device: Device,
        *,
        bundle: Bundle | None = None,
        trt: Any | None = None,
    ) -> None:
        """Checks the file, then has TensorRT read it.

        Args:
            path: The engine, its record beside it.
            device: The GPU to run on.
            bundle: What it must have been built from.
            trt: TensorRT's module; the one the record names unless given.

        Raises:
            MissingFile: There is no such file.
            EngineError: It is damaged, stale, or for another machine.
            MissingDependency: The TensorRT it is for, or the plugins, are not there.
            DeviceError: The GPU has not enough memory.
        """
        self.path, self.record = path, read_record(path)
        key = self.record.key
        self.trt = plugins.load(key.target) if trt is None else trt
        check(path, self.record, device, bundle, self.trt)
        check_file(path, self.record)
        self._load_plugins()
        self._logger = plugins.make_logger(self.trt)
        self._runtime = self.trt.Runtime(self._logger)
        if key.flags.version_compatible:
            self._runtime.engine_host_code_allowed = True  # the lean runtime is within
        self._engine = self._runtime.deserialize_cuda_engine(path.read_bytes())
        if self._engine is None:
            raise self._failed("cannot be loaded")
        self._config = self._runtime_config()
        self.sizes = self._sizes()
        self.inputs, self.outputs = self._specs()
        self.scratch_bytes = self._scratch_bytes()

    @property
    def name(self) -> str:
        """For people."""
        key = self.record.key
        kind = {"tensorrt": "TensorRT", "tensorrt-rtx": "TensorRT for RTX"}[key.target]
        return f"{kind} {self.trt.__version__}, {key.precision}"

    def context(self, slot: Slot, extent: Extent) -> Any:
        """An execution context for one size, in a slot's memory.

        A context of its own for each size: a graph that was captured from one is undefined
        once that context is changed (TensorRT's guide, "CUDA graphs").

        Raises:
            ShapeError: The engine does not take this size.
        """
        self.check_extent(extent)
        strategy = self.trt.ExecutionContextAllocationStrategy.USER_MANAGED
        how = strategy if self._config is None else self._config
        context = self._engine.create_execution_context(how)
        if context is None:
            raise self._failed("gives no execution context")
        if self.scratch_bytes:
            context.set_device_memory(slot.scratch, slot.scratch_bytes)
        self._set_shapes(context, extent)
        for spec in (*self.inputs, *self.outputs):
            self.set_address(context, spec.name, slot.tensors[spec.name].pointer)
        return context

    def set_address(self, context: Any, name: str, pointer: int) -> None:
        """Says where a tensor lies."""
        if not context.set_tensor_address(name, pointer):
            raise self._failed(f"refuses an address for {name}")

    def enqueue(self, context: Any, stream: int) -> None:
        """Puts the network on a stream.

        Raises:
            DeviceError: TensorRT refuses.
        """
        if not context.execute_async_v3(stream):
            raise DeviceError(f"{self.path.name} failed to run: {self._reason()}")

    def output_shapes(self, context: Any) -> dict[str, Shape]:
        """Shapes of a context's outputs."""
        return {name: tuple(context.get_tensor_shape(name)) for name in OUTPUTS}

    def check_extent(self, extent: Extent) -> None:
        """Refuses sizes outside the optimisation profile.

        Raises:
            ShapeError: One is.
        """
        if extent not in self.sizes:
            shown = "x".join(map(str, extent))
            raise ShapeError(
                f"the input is {shown} (N, H, W), {self.path.name} takes {self.sizes}; resize "
                "it, or build an engine with --min, --max and --batch that cover it"
            )

    def close(self) -> None:
        """Frees the engine; contexts must be gone."""
        self._save_cache()
        self._config = self._engine = self._runtime = None

    def _load_plugins(self) -> None:
        wanted = self.record.key.plugins
        if wanted is None:
            return
        from m2f.bundle import sha256_of

        library = plugins.find_plugins()
        found = sha256_of(library) if library is not None else "0" * 64
        if library is None or found != wanted:
            here = f"here is {found[:12]}..." if library is not None else "here is none"
            raise EngineError(
                f"{self.path}: was built with a plugin library of SHA-256 {wanted[:12]}..., "
                f"{here}; run `m2f build` again"
            )
        plugins.load_plugins(self.trt, library)

    def _runtime_config(self) -> Any:
        """TensorRT for RTX finishes kernels on first use; keeps them beside the engine."""
        if self.record.key.target != "tensorrt-rtx":
            return None
        config = self._engine.create_runtime_config()
        strategy = self.trt.ExecutionContextAllocationStrategy.USER_MANAGED
        config.set_execution_context_allocation_strategy(strategy)
        cache = config.create_runtime_cache()
        file = self.path.with_suffix(".cache")
        if file.is_file():
            cache.deserialize(file.read_bytes())  # it judges itself whether they still fit
        config.set_runtime_cache(cache)
        self._cache = cache
        return config

    def _save_cache(self) -> None:
        if self._config is None:
            return
        kernels = bytes(self._cache.serialize())
        file = self.path.with_suffix(".cache")
        if not file.is_file() or file.read_bytes() != kernels:
            # A bundle that cannot be written to only starts more slowly the next time.
            with contextlib.suppress(DeviceError, OSError), replacing(file) as stream:
                stream.write(kernels)

    def _sizes(self) -> Sizes:
        shapes = self._engine.get_tensor_profile_shape(IMAGE, 0)
        low, best, high = ((int(s[0]), int(s[1]), int(s[2])) for s in shapes)
        return Sizes(min=low, opt=best, max=high)

    def _specs(self) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
        context = self._engine.create_execution_context(
            self.trt.ExecutionContextAllocationStrategy.USER_MANAGED
            if self._config is None
            else self._config
        )
        self._set_shapes(context, self.sizes.max)
        inputs: list[TensorSpec] = []
        outputs: list[TensorSpec] = []
        for i in range(self._engine.num_io_tensors):
            name = self._engine.get_tensor_name(i)
            dtype = np.dtype(self.trt.nptype(self._engine.get_tensor_dtype(name)))
            spec = TensorSpec(
                name=name, dtype=dtype, largest=tuple(context.get_tensor_shape(name))
            )
            is_input = self._engine.get_tensor_mode(name) == self.trt.TensorIOMode.INPUT
            (inputs if is_input else outputs).append(spec)
        names = {spec.name for spec in (*inputs, *outputs)}
        if names - {IMAGE_SIZE} != {IMAGE, *OUTPUTS}:
            raise EngineError(
                f"{self.path}: has the tensors {sorted(names)}, expected {IMAGE}, "
                f"{IMAGE_SIZE}, {', '.join(OUTPUTS)}; build it with `m2f build`"
            )
        return tuple(inputs), tuple(outputs)

    def _set_shapes(self, context: Any, extent: Extent) -> None:
        context.set_input_shape(IMAGE, (*extent, 3))
        names = [self._engine.get_tensor_name(i) for i in range(self._engine.num_io_tensors)]
        if IMAGE_SIZE in names:
            context.set_input_shape(IMAGE_SIZE, (extent[0], 2))

    def _scratch_bytes(self) -> int:
        ask = getattr(self._engine, "get_device_memory_size_for_profile_v2", None)
        return int(ask(0) if ask is not None else self._engine.device_memory_size)

    def _failed(self, what: str) -> EngineError | DeviceError:
        reason = self._reason()
        if "out of memory" in reason.lower() or "outofmemory" in reason.lower():
            return DeviceError(
                f"{self.path}: {what}: the GPU has not enough memory; use smaller sizes or "
                "batches (`m2f build --max`), or end what else runs there"
            )
        return EngineError(f"{self.path}: {what}: {reason}; run `m2f build` on this machine")

    def _reason(self) -> str:
        errors: list[str] = self._logger.errors
        return errors[-1] if errors else "TensorRT gives no reason"
