"""TensorRT plugins, driven from Python as TensorRT would drive them (drive.cc)."""

import ctypes
import dataclasses

import numpy as np

from tests.cuda_on_cpu.build import output

TEXT_BYTES = 1 << 14
OK = 0
BUILD, RUNTIME = 0, 1  # nvinfer1::TensorRTPhase
FIELD_FLOAT32, FIELD_INT32, FIELD_INT64 = 1, 5, 10  # nvinfer1::PluginFieldType
DATA_TYPES = {"float32": 0, "float16": 1, "int8": 2, "int32": 3, "bfloat16": 7}
LINEAR, CHANNELS_LAST_8 = 0, 2  # nvinfer1::TensorFormat


class _Tensor(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_int32) for name in ("rank", "type", "format")),
        *((name, ctypes.c_int64 * 8) for name in ("least", "most")),
    )


@dataclasses.dataclass(frozen=True)
class Tensor:
    """A tensor that is only described; ``least`` differs from ``sizes`` where it is dynamic."""

    sizes: tuple
    type: str = "float32"
    least: tuple | None = None
    format: int = LINEAR

    def to_c(self):
        code = DATA_TYPES[self.type]
        least = self.sizes if self.least is None else self.least
        return _Tensor(len(self.sizes), code, self.format, least, self.sizes)


def _described(tensors):
    return (_Tensor * len(tensors))(*(t.to_c() for t in tensors))


class Library:
    """The plugin library on the CPU, and its logger."""

    def __init__(self, emulated):
        self.emulated = emulated
        self.c = emulated.library
        for name in ("create", "saved", "clone", "attach"):
            getattr(self.c, f"drive_{name}").restype = ctypes.c_void_p
        self.c.drive_workspace.restype = ctypes.c_int64
        self.creators = self.text("drive_creators").splitlines()

    def text(self, function, *arguments):
        text = ctypes.create_string_buffer(TEXT_BYTES)
        getattr(self.c, function)(*arguments, text, TEXT_BYTES)
        return text.value.decode()

    def log(self):
        """What was logged since the last call."""
        return self.text("drive_take_log")

    def create(self, name, phase=BUILD, **attributes):
        """A plugin, or None; integers are int32 fields, as the ONNX parser makes them."""
        arrays = [np.atleast_1d(np.asarray(value)) for value in attributes.values()]
        arrays = [a.astype(np.float32 if a.dtype.kind == "f" else np.int32) for a in arrays]
        return self.create_from(name, list(zip(attributes, arrays, strict=True)), phase)

    def create_from(self, name, fields, phase=BUILD):
        types = {"float32": FIELD_FLOAT32, "int32": FIELD_INT32, "int64": FIELD_INT64}
        count = len(fields)
        handle = self.c.drive_create(
            name.encode(),
            count,
            (ctypes.c_char_p * count)(*(key.encode() for key, _ in fields)),
            (ctypes.c_int * count)(*(types[str(a.dtype)] for _, a in fields)),
            (ctypes.c_void_p * count)(*(a.ctypes.data for _, a in fields)),
            (ctypes.c_int * count)(*(a.size for _, a in fields)),
            phase,
        )
        return Plugin(self, handle) if handle else None


class Plugin:
    """One IPluginV3 object."""

    def __init__(self, library, handle):
        self.library, self.c = library, library.c
        self.handle = ctypes.c_void_p(handle)

    def __del__(self):
        self.c.drive_delete(self.handle)

    def made(self, how):
        """Another plugin from this one: "clone", "attach" or "saved"."""
        return Plugin(self.library, getattr(self.c, f"drive_{how}")(self.handle))

    def identity(self):
        """What it is called, what it was made from, and what it saves."""
        return self.library.text("drive_identity", self.handle)

    def supports(self, tensors, position, inputs):
        arguments = (_described(tensors), inputs, len(tensors) - inputs, position)
        return bool(self.c.drive_supports(self.handle, *arguments))

    def output_type(self, inputs):
        """Name of the output's type; None where the inputs' types have none."""
        found = ctypes.c_int32()
        arguments = (_described(inputs), len(inputs), ctypes.byref(found))
        if self.c.drive_output_type(self.handle, *arguments) != OK:
            return None
        return next(name for name, code in DATA_TYPES.items() if code == found.value)

    def output_shape(self, inputs):
        sizes, rank = (ctypes.c_int64 * 8)(), ctypes.c_int32()
        arguments = (_described(inputs), len(inputs), sizes, ctypes.byref(rank))
        if self.c.drive_output_shape(self.handle, *arguments) != OK:
            return None
        return tuple(sizes[: rank.value])

    def configure(self, inputs, outputs):
        return self._takes("configure", inputs, outputs)

    def shape_change(self, inputs, outputs):
        return self._takes("shape_change", inputs, outputs)

    def workspace(self, inputs, outputs):
        arguments = (_described([*inputs, *outputs]), len(inputs), len(outputs))
        return self.c.drive_workspace(self.handle, *arguments)

    def tactics(self):
        found = (ctypes.c_int32 * 24)()
        return list(found[: self.c.drive_tactics(self.handle, found)])

    def set_tactic(self, tactic):
        return self.c.drive_set_tactic(self.handle, tactic) == OK

    def enqueue(self, arrays, result, workspace_bytes):
        """Runs on the CPU; what kernels may not do, fails."""
        inputs = [*arrays, *[None] * (4 - len(arrays))]
        workspace = output(max(workspace_bytes, 1), np.uint8)
        arguments = (self.handle, *inputs, result, workspace)
        found = self.library.emulated.call("drive_enqueue", *arguments)
        assert found == "", found
        return np.asarray(result)

    def _takes(self, method, inputs, outputs):
        arguments = (_described([*inputs, *outputs]), len(inputs), len(outputs))
        return getattr(self.c, f"drive_{method}")(self.handle, *arguments) == OK
