"""ONNX files: weights in, whole files out and back, and a stranger's checks."""

from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

import numpy as np
import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import helper, numpy_helper

from m2f.bundle import MODEL, WEIGHTS
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
) -> None:
    """Writes model.onnx, and model.onnx.data where the weights are large.

    Args:
        model: Without initializers.
        arrays: Their data, by name.
        folder: Where to; the files must not exist.
        external_data: Write the weights to their own file whatever their size.

    Raises:
        ExportError: ONNX's checker refuses the result; a bug of ours, so its words are kept.
    """
    total = sum(array.nbytes for array in arrays.values())
    is_external = external_data or total > LARGEST_INLINE
    proto = onnx.ModelProto()
    proto.CopyFrom(model)
    if is_external:
        with (folder / WEIGHTS).open("wb") as stream:
            for name, array in arrays.items():
                proto.graph.initializer.append(_external(name, array, stream))
    else:
        for name, array in arrays.items():
            proto.graph.initializer.append(numpy_helper.from_array(array, name))
    path = folder / MODEL
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
    stream.write(np.ascontiguousarray(array).data)
    return tensor
