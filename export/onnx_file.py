"""ONNX files: weights in, whole files out and back, and a stranger's checks."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import BinaryIO

import numpy as np
import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import helper, numpy_helper

from m2f.bundle import CPU_MODEL, MODEL, WEIGHTS
from m2f.errors import BundleError, ExportError
from m2f.export.graph import Array

LARGEST_INLINE = 1_800_000_000
"""Bytes of weights above which they go to a file of their own; protobuf ends at 2 GiB."""

SMALL = 1024
"""Bytes up to which an array stays in the graph's own file: shapes and constants, which a
parser wants to see."""


def load(path: Path) -> tuple[onnx.ModelProto, dict[str, Array]]:
    """Reads a bundle's ONNX file.

    Args:
        path: Of model.onnx, whose weights may lie beside it.

    Returns:
        The model without its initializers, and their data by name: what `save` takes.

    Raises:
        BundleError: It is not an ONNX file.
    """
    try:
        model = onnx.load(str(path))
    except (DecodeError, onnx.checker.ValidationError, OSError) as problem:
        raise BundleError(f"{path}: is not an ONNX file; export it again") from problem
    arrays = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    del model.graph.initializer[:]
    return model, arrays


def save(
    model: onnx.ModelProto,
    arrays: Mapping[str, Array],
    folder: Path,
    *,
    external_data: bool = False,
    fused: tuple[onnx.ModelProto, Mapping[str, Array]] | None = None,
) -> None:
    """Writes model.onnx, and model.onnx.data where the weights are large or of two networks.

    Args:
        model: Without initializers.
        arrays: Their data, by name.
        folder: Where to; the files must not exist.
        external_data: Write the weights to their own file whatever their size.
        fused: The same network for our CPU kernels, for model.cpu.onnx, and its arrays; those
            of the same name are the same.

    Raises:
        ExportError: ONNX's checker refuses the result; a bug of ours, so its words are kept.
    """
    weights = {**arrays, **(fused[1] if fused else {})}
    total = sum(array.nbytes for array in weights.values())
    if external_data or fused or total > LARGEST_INLINE:
        with (folder / WEIGHTS).open("wb") as stream:
            tensors = {name: _external(name, a, stream) for name, a in weights.items()}
    else:
        tensors = {name: numpy_helper.from_array(a, name) for name, a in weights.items()}
    _write(model, [tensors[name] for name in arrays], folder / MODEL)
    if fused:
        _write(fused[0], [tensors[name] for name in fused[1]], folder / CPU_MODEL)


def _write(model: onnx.ModelProto, weights: Iterable[onnx.TensorProto], path: Path) -> None:
    proto = onnx.ModelProto()
    proto.CopyFrom(model)
    proto.graph.initializer.extend(weights)
    path.write_bytes(proto.SerializeToString())
    try:
        onnx.checker.check_model(str(path))
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as problem:
        raise ExportError(f"the exported graph is not valid ONNX: {problem}") from problem


ALIGNMENT = 4096
"""Of each array in the weight file, so that runtimes may map it into memory."""


def _external(name: str, array: Array, stream: BinaryIO) -> onnx.TensorProto:
    """Appends an array to the weight file and describes where it lies."""
    if array.nbytes <= SMALL:
        return numpy_helper.from_array(array, name)
    stream.write(b"\0" * (-stream.tell() % ALIGNMENT))
    tensor = onnx.TensorProto(
        name=name,
        dims=array.shape,
        data_type=helper.np_dtype_to_tensor_dtype(array.dtype),
        data_location=onnx.TensorProto.EXTERNAL,
    )
    place = {"location": WEIGHTS, "offset": stream.tell(), "length": array.nbytes}
    for key, value in place.items():
        tensor.external_data.add(key=key, value=str(value))
    # As bytes: Python's buffers do not know types that only ONNX has.
    stream.write(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return tensor
