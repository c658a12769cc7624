"""Reads and writes safetensors: a length, a JSON header, then every tensor's bytes.

https://huggingface.co/docs/safetensors, section Format. Written here because the official
package gives NumPy no bfloat16, and copies what this package only wants to look at.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from typing import IO, Any

import numpy as np

from m2f.models.checkpoint.stored import (
    Array,
    Malformed,
    Storage,
    StoredTensor,
    contiguous,
    shown,
    sizes,
)

_TYPES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U8": "uint8",
    "BOOL": "bool",
}
_CODES = {np.dtype(name): code for code, name in _TYPES.items() if name != "bfloat16"}
_LONGEST_HEADER = 100_000_000
"""Bytes; the format's own limit."""


def is_safetensors(data: memoryview) -> bool:
    """Whether a file begins like one."""
    return len(data) > 9 and bytes(data[8:9]) == b"{" and _header_size(data) <= _LONGEST_HEADER


def read(data: memoryview) -> dict[str, StoredTensor]:
    """Reads a file's header; the tensors look into ``data``.

    Raises:
        Malformed: The file is truncated, or its header contradicts itself.
    """
    start = 8 + _header_size(data)
    if start > len(data):
        raise Malformed(f"is truncated: its header ends at byte {start}, it at {len(data)}")
    try:
        header = json.loads(bytes(data[8:start]))
    except (ValueError, RecursionError) as problem:
        raise Malformed("is a corrupt safetensors file: its header is not JSON") from problem
    if not isinstance(header, dict):
        raise Malformed("is a corrupt safetensors file: its header is no object")
    entries = {name: entry for name, entry in header.items() if name != "__metadata__"}
    return {name: _tensor(entry, data[start:]) for name, entry in entries.items()}


def write(weights: Mapping[str, Array], stream: IO[bytes]) -> None:
    """Writes arrays in their order; metadata says "pt", which transformers insists on."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    position = 0
    for name, array in weights.items():
        end = position + array.nbytes
        header[name] = {
            "dtype": _CODES[array.dtype],
            "shape": list(array.shape),
            "data_offsets": [position, end],
        }
        position = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # tensors begin at a multiple of 8 bytes
    stream.write(struct.pack("<Q", len(text)) + text)
    for array in weights.values():
        little = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
        stream.write(little.reshape(-1).view(np.uint8).data)


def _header_size(data: memoryview) -> int:
    size: int = struct.unpack_from("<Q", data)[0]
    return size


def _tensor(entry: Any, data: memoryview) -> StoredTensor:
    try:
        type_ = _TYPES.get(entry["dtype"], shown(entry["dtype"], 20))
        shape = sizes(entry["shape"])
        begin, end = sizes(entry["data_offsets"])
    except (KeyError, TypeError, ValueError) as problem:
        raise Malformed("is a corrupt safetensors file: an entry lacks a field") from problem
    if not begin <= end <= len(data):
        raise Malformed(f"is truncated: a tensor ends at byte {end} of {len(data)}")
    part = data[begin:end]
    tensor = StoredTensor(Storage(lambda: part), type_, 0, shape, contiguous(shape))
    if type_ in _TYPES.values() and tensor.nbytes != len(part):
        raise Malformed(
            f"is corrupt: a tensor of shape {shape} needs {tensor.nbytes} bytes, it has "
            f"{len(part)}"
        )
    return tensor
