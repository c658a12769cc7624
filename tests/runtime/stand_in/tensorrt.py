"""TensorRT's module for a `StandInDevice`: its engines compute through ONNX Runtime.

So results equal the CPU's, and what an engine is given can be checked: shapes within the
profile, addresses of live memory, scratch memory nobody else is using, graphs only of
contexts that have run once and were not touched since.
"""

import json
from types import SimpleNamespace

import numpy as np
import onnxruntime

from tests.runtime.stand_in.device import Entry, Misuse

SCRATCH = 5000


class ILogger:
    ERROR, INTERNAL_ERROR, WARNING, INFO = range(4)


class Plugins:
    loaded = ()

    def load_library(self, path):
        return object()


def module(device, version="11.4.0"):
    """The module, whose engines run on this device."""
    return SimpleNamespace(
        __version__=version,
        ILogger=ILogger,
        Runtime=lambda logger: Runtime(device, logger),
        ExecutionContextAllocationStrategy=SimpleNamespace(STATIC=0, USER_MANAGED=2),
        TensorIOMode=SimpleNamespace(INPUT=1, OUTPUT=2),
        nptype=lambda dtype: dtype,
        get_plugin_registry=Plugins,
    )


def plan(onnx_file, sizes):
    """What an engine file holds."""
    return json.dumps({"onnx": str(onnx_file), "sizes": sizes}).encode()


class Runtime:
    def __init__(self, device, logger):
        self.device, self.logger = device, logger

    def deserialize_cuda_engine(self, raw):
        try:
            content = json.loads(raw)
        except ValueError:
            self.logger.log(ILogger.ERROR, "Serialization assertion failed")
            return None
        return Engine(self.device, content["onnx"], content["sizes"])


class Engine:
    """Of a network with `image`, perhaps `image_size`, and two outputs."""

    def __init__(self, device, onnx_file, sizes):
        self.device, self.sizes = device, sizes
        options = onnxruntime.SessionOptions()
        options.log_severity_level, options.intra_op_num_threads = 3, 1
        self.session = onnxruntime.InferenceSession(onnx_file, options)
        known = {t.name for t in self.session.get_overridable_initializers()}
        self.names = [t.name for t in self.session.get_inputs()]
        self.names += sorted(known & {"image_size"})
        self.outputs = [t.name for t in self.session.get_outputs()]
        self.num_io_tensors = len(self.names) + len(self.outputs)
        self.contexts = 0
        self._shapes = {}

    def get_tensor_name(self, i):
        return (self.names + self.outputs)[i]

    def get_tensor_mode(self, name):
        return 1 if name in self.names else 2

    def get_tensor_dtype(self, name):
        return {"image": np.uint8, "image_size": np.int64}.get(name, np.float32)

    def get_tensor_profile_shape(self, name, profile):
        assert (name, profile) == ("image", 0)
        return [(*extent, 3) for extent in self.sizes]

    def get_device_memory_size_for_profile_v2(self, profile):
        return SCRATCH

    def create_execution_context(self, strategy):
        if strategy not in (2, "config"):
            raise Misuse("a context that allocates for itself")
        return Context(self)

    def create_runtime_config(self):
        return RuntimeConfig()

    def output_shapes(self, shapes):
        key = tuple(shapes.items())
        if key not in self._shapes:
            feeds = {n: np.zeros(s, self.get_tensor_dtype(n)) for n, s in shapes.items()}
            found = self.session.run(self.outputs, feeds)
            self._shapes[key] = {n: a.shape for n, a in zip(self.outputs, found, strict=True)}
        return self._shapes[key]


class RuntimeConfig(str):
    """TensorRT for RTX's."""

    def __new__(cls):
        return super().__new__(cls, "config")

    def set_execution_context_allocation_strategy(self, strategy):
        assert strategy == 2

    def create_runtime_cache(self):
        return SimpleNamespace(serialize=lambda: b"kernels", deserialize=lambda blob: True)

    def set_runtime_cache(self, cache):
        return True


class Context:
    """Everything an enqueued network depends on; counts its own changes."""

    def __init__(self, engine):
        self.engine, self.device = engine, engine.device
        self.shapes, self.addresses, self.scratch = {}, {}, None
        self.changes, self.ran_at = 0, None

    def set_input_shape(self, name, shape):
        low, _, high = self.engine.sizes
        least, most = (
            ((*low, 3), (*high, 3)) if name == "image" else ((low[0], 2), (high[0], 2))
        )
        if not all(a <= s <= b for a, s, b in zip(least, shape, most, strict=True)):
            return False
        self.shapes[name] = tuple(shape)
        self.changes += 1
        return True

    def set_tensor_address(self, name, pointer):
        self.addresses[name] = pointer
        self.changes += 1
        return True

    def set_device_memory(self, pointer, nbytes):
        if nbytes < SCRATCH or pointer % 256:
            raise Misuse(f"{nbytes} bytes of scratch at {pointer:#x}, {SCRATCH} are needed")
        self.scratch = pointer
        self.changes += 1

    def get_tensor_shape(self, name):
        if name in self.shapes:
            return self.shapes[name]
        return self.engine.output_shapes(self.shapes)[name]

    def execute_async_v3(self, stream):
        is_captured = stream in self.device.capturing
        if self.scratch is None:
            raise Misuse("a network without scratch memory")
        if is_captured and self.ran_at != self.changes:
            raise Misuse("a context is captured that has not run since it was changed")
        for other, queue in self.device.streams.items():
            if other != stream and any(e.what == ("network", self.scratch) for e in queue):
                raise Misuse("two streams use the same scratch memory")
        self.ran_at = self.changes
        self.device.enqueue(stream, self._entry(self.changes))
        return True

    def _entry(self, changes):
        shapes = {**self.shapes, **self.engine.output_shapes(self.shapes)}
        dtypes = {n: np.dtype(self.engine.get_tensor_dtype(n)) for n in shapes}
        places = {
            n: (self.addresses.get(n, 0), int(np.prod(s)) * dtypes[n].itemsize)
            for n, s in shapes.items()
        }

        def array(name):
            block = self.device.find(*places[name], "device")
            return block.view(*places[name]).view(dtypes[name]).reshape(shapes[name])

        def do():
            if self.changes != changes:
                raise Misuse("a context was changed before what was enqueued of it ran")
            self.device.find(self.scratch, SCRATCH, "device").view(self.scratch, SCRATCH)[:] = 1
            feeds = {name: array(name).copy() for name in self.shapes}
            results = self.engine.session.run(self.engine.outputs, feeds)
            for name, result in zip(self.engine.outputs, results, strict=True):
                array(name)[...] = result

        touches = (*places.values(), (self.scratch, SCRATCH))
        return Entry(("network", self.scratch), touches, do, lambda: self._entry(changes))
