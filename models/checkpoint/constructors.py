"""What a pickle may have constructed without PyTorch: arrays, dicts, bytes, and stand-ins."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from m2f.models.checkpoint.stored import (
    TYPES,
    Malformed,
    Storage,
    StoredTensor,
    contiguous,
    shown,
    sizes,
)

KEYS = (str, bytes, int, float, type(None))
"""Types of dict keys that are kept; hashing deeply nested tuples could overflow the stack."""


class Global(NamedTuple):
    """The name of something in a Python module; only ever a name."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


Calls = Mapping[Global, Callable[..., Any]]


@dataclass(frozen=True, slots=True, eq=False)
class Opaque:
    """Stands for an object of no interest, made by calling ``origin``."""

    origin: object


class Refused(Malformed):
    """A pickle that names something which could run code."""


@dataclass(slots=True)
class DType:
    """A NumPy dtype, as far as weights go: a key of `TYPES`, or another name."""

    type: str
    order: str = "<"

    def set_state(self, state: Any) -> None:
        """Takes what ``numpy.dtype.__reduce__`` gives: version, byte order, subtype, ..."""
        _, self.order, subtype, names, *_ = state
        if subtype is not None or names is not None:
            self.type = "records"


class PickledArray(StoredTensor):
    """A NumPy array that a pickle names first and describes later."""

    __slots__ = ()

    def set_state(self, state: Any) -> None:
        """Takes what ``ndarray.__reduce__`` gives: version, shape, dtype, order, bytes."""
        shape, dtype, is_fortran, raw = state[-4:]
        if isinstance(raw, list):
            self.type, self.shape = "Python objects", sizes(shape)
            return
        filled = _array(shape, dtype, raw, fortran=bool(is_fortran))
        self.storage, self.type = filled.storage, filled.type
        self.shape, self.strides = filled.shape, filled.strides


_CODES = {f"{dtype.kind}{dtype.itemsize}": name for name, dtype in TYPES.items()}
_CODES["u2"] = "uint16"  # which `TYPES` has as the container of bfloat16


def _dtype(code: Any, *_: Any) -> DType:
    text = code if isinstance(code, str) else "unknown"
    order, plain = (text[0], text[1:]) if text[:1] in "<>=|" else ("<", text)
    kinds = {"O": "Python objects", "O8": "Python objects"}
    return DType(_CODES.get(plain, kinds.get(plain, f"NumPy {shown(plain, 20)}")), order)


def _array(shape: Any, dtype: Any, raw: Any, *, fortran: bool = False) -> StoredTensor:
    if isinstance(dtype, str):
        dtype = _dtype(dtype)
    if isinstance(raw, str):
        raw = raw.encode("latin-1")  # written by Python 2
    if not isinstance(dtype, DType) or not isinstance(raw, (bytes, bytearray)):
        raise Malformed("is a corrupt pickle (an array without bytes)")
    shape = sizes(shape)
    order: Literal["<", ">"] = ">" if dtype.order == ">" else "<"
    tensor = StoredTensor(
        Storage(lambda: raw, order), dtype.type, 0, shape, contiguous(shape, fortran=fortran)
    )
    if dtype.type in TYPES and tensor.nbytes != len(raw):
        raise Malformed(
            f"is corrupt: an array of shape {shape} needs {tensor.nbytes} bytes, the file "
            f"holds {len(raw)}"
        )
    return tensor


def _scalar(dtype: Any, raw: Any = b"") -> Any:
    if not isinstance(dtype, DType) or dtype.type not in TYPES:
        return Opaque("scalar")
    return _array((), dtype, raw).array().item()


def _encode(text: Any, encoding: Any = "utf-8") -> bytes:
    """Bytes in pickles of protocol 2, which has none, are Latin-1 text to be encoded."""
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise Refused(f"asks for the codec {shown(encoding, 30)}, which no checkpoint needs")
    return text.encode("latin-1")


def _bytes(raw: Any = b"", *_: Any) -> bytes:
    return raw.encode("latin-1") if isinstance(raw, str) else bytes(memoryview(raw))


def _dict(items: Any = ()) -> dict[Any, Any]:
    pairs = items.items() if isinstance(items, dict) else items
    return {key: value for key, value in pairs if isinstance(key, KEYS)}


PLAIN: Calls = {
    Global("_codecs", "encode"): _encode,
    Global("builtins", "bytes"): _bytes,
    Global("builtins", "bytearray"): _bytes,
    Global("builtins", "dict"): _dict,
    Global("collections", "Counter"): _dict,
    Global("collections", "OrderedDict"): _dict,
    Global("collections", "defaultdict"): lambda *_: {},
    Global("numpy", "dtype"): _dtype,
    Global("numpy", "ndarray"): lambda shape, dtype, raw, *_: _array(shape, dtype, raw),
    Global("numpy.core.multiarray", "_reconstruct"): lambda *_: PickledArray(),
    Global("numpy.core.multiarray", "scalar"): _scalar,
    Global("numpy.core.numeric", "_frombuffer"): lambda raw, dtype, shape, order: _array(
        shape, dtype, raw, fortran=order == "F"
    ),
}
"""Constructors of NumPy and the standard library, for `pickles.load`."""
