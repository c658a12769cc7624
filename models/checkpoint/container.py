"""From a checkpoint file of any kind to its weights by name, and what else it holds."""

from __future__ import annotations

import hashlib
import mmap
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from m2f.errors import CheckpointError, MissingFile
from m2f.models.checkpoint import pickles, safetensors_file, torch_file
from m2f.models.checkpoint.stored import Malformed, StoredTensor, shown

_WEIGHTS = ("model", "state_dict", "model_state_dict", "model_state", "module", "weights")
"""Where training programs put the weights, most common first."""

_WRAPPERS = ("module.", "_orig_mod.")
"""Prefixes that data-parallel and compiled models put before every name."""

_FOREIGN = (
    (rb"version https://git-lfs", "is a git-lfs pointer, not the file; run `git lfs pull`"),
    (rb"\s*<(!doctype|html|\?xml)", "is a web page, not a checkpoint; download it again"),
    (rb"\x1f\x8b|BZh|\xfd7zXZ|7z\xbc\xaf|\x28\xb5\x2f\xfd|Rar!", "is compressed; unpack it"),
    (rb"\x89HDF|CDF\x01", "is an HDF5 file, which no Mask2Former comes in"),
    (rb"\x00+$", "holds nothing but zeros; download it again"),
)


@dataclass(frozen=True, slots=True)
class Contents:
    """What a file holds.

    Attributes:
        weights: By name, as in the file but without wrappers' prefixes.
        meta: The rest of the saved dict; empty where the file is the weights alone.
        size: Bytes.
        sha256: Hexadecimal.
    """

    weights: dict[str, StoredTensor]
    meta: Mapping[Any, Any]
    size: int
    sha256: str


def open_file(path: Path) -> Contents:
    """Reads a .pkl, .pth, .bin or .safetensors file; by its content, not by its name.

    Raises:
        MissingFile: It cannot be opened.
        CheckpointError: It is not a checkpoint, is damaged, or is hostile.
    """
    try:
        if not path.is_file():
            raise MissingFile(f"{path}: no such file")
        if path.stat().st_size == 0:
            raise CheckpointError(f"{path}: is empty; download it again")
        with path.open("rb") as stream:
            mapped = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
    except OSError as problem:
        reason = problem.strerror or str(problem)
        raise MissingFile(f"{path}: cannot be read: {reason}") from problem
    data = memoryview(mapped)
    try:
        weights, meta = _weights(_reader(data)(data, mapped))
    except Malformed as problem:
        raise CheckpointError(f"{path}: {problem}") from problem
    return Contents(weights, meta, len(data), hashlib.sha256(data).hexdigest())


def _reader(data: memoryview) -> Callable[[memoryview, mmap.mmap], Any]:
    head = bytes(data[:1024])
    if head.startswith(b"PK\x03\x04"):
        return torch_file.read_zip
    if head.startswith(torch_file.LEGACY_MAGIC):
        return torch_file.read_legacy
    if safetensors_file.is_safetensors(data):
        return lambda data, _: safetensors_file.read(data)
    for pattern, message in _FOREIGN:
        if re.match(pattern, head, re.IGNORECASE):
            raise Malformed(message)
    if head[257:262] == b"ustar":
        raise Malformed("is a tar archive; unpack it")
    # Binary pickles say their protocol; those of protocol 0 begin with one of these.
    if head[:1] == b"\x80" or re.match(rb"[(}\]][dlp}\]q(]|ccollections\n", head):
        return lambda data, mapped: pickles.load(mapped, len(data), calls=torch_file.CALLS)
    if re.fullmatch(rb"[\t\n\r -~]+", head):
        raise Malformed(f"is a text file, not a checkpoint (it begins {head[:30]!r})")
    raise Malformed(f"is of no known checkpoint format (it begins {head[:8]!r})")


def _weights(root: Any) -> tuple[dict[str, StoredTensor], Mapping[Any, Any]]:
    """Finds the dict of weights in what was saved."""
    if not isinstance(root, dict):
        raise Malformed(
            "holds no dict of weights but another object; save the model's state_dict()"
        )
    for key in _WEIGHTS:
        if isinstance(root.get(key), dict) and (found := _tensors(root[key])):
            return found, {k: v for k, v in root.items() if k != key}
    if found := _tensors(root):
        return found, {k: v for k, v in root.items() if not isinstance(v, StoredTensor)}
    keys = ", ".join(shown(key, 30) for key in list(root)[:8])
    raise Malformed(f"holds no weights (its keys: {keys or 'none'})")


def _tensors(items: Mapping[Any, Any]) -> dict[str, StoredTensor]:
    found = {
        name: value
        for name, value in items.items()
        if isinstance(name, str) and isinstance(value, StoredTensor)
    }
    for prefix in _WRAPPERS:
        if found and all(name.startswith(prefix) for name in found):
            found = {name.removeprefix(prefix): value for name, value in found.items()}
    return found
