"""Reads what ``torch.save`` writes, without PyTorch: the zip format and the legacy one.

Zip (PyTorch 1.6 and later): ``<name>/data.pkl`` is a pickle of the saved object whose tensors
refer to ``<name>/data/<key>``, raw bytes. Entries are never compressed, so they are used in
place. Legacy: five pickles (a magic number, a version, facts about the machine, the object,
the keys of the storages), then each storage as a count and its bytes.
"""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import IO, Any, Literal, cast

from m2f.models.checkpoint import pickles
from m2f.models.checkpoint.constructors import PLAIN, Calls, Global, Opaque
from m2f.models.checkpoint.pickles import Stream
from m2f.models.checkpoint.stored import TYPES, Malformed, Storage, StoredTensor, shown, sizes

LEGACY_MAGIC = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."
"""The first pickle of a legacy file: 0x1950a86a20f9469cfc6c, in protocol 2."""

_STORAGE_TYPES = {
    "DoubleStorage": "float64",
    "FloatStorage": "float32",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
    "UntypedStorage": "uint8",
    "TypedStorage": "uint8",
    "ComplexFloatStorage": "complex64",
    "ComplexDoubleStorage": "complex128",
    "QInt8Storage": "qint8",
    "QUInt8Storage": "quint8",
    "QInt32Storage": "qint32",
}
_DTYPES = (
    *set(_STORAGE_TYPES.values()),
    *("uint16", "uint32", "uint64", "float8_e4m3fn", "float8_e5m2"),
    *("float8_e4m3fnuz", "float8_e5m2fnuz", "float8_e8m0fnu"),
)


@dataclass(frozen=True, slots=True)
class _TypedStorage:
    """What a persistent id stands for; ``offset`` counts elements (legacy views only)."""

    storage: Storage
    type: str
    offset: int = 0


def read_zip(data: memoryview, stream: Stream) -> Any:
    """Reads the zip format.

    Args:
        data: The whole file; tensors keep looking into it.
        stream: The same bytes as a file.

    Returns:
        The saved object, see `pickles.load`.

    Raises:
        Malformed: It is truncated, altered, or not from ``torch.save``.
    """
    records = _records(data, stream)
    pickled = [name for name in records if name.rpartition("/")[2] == "data.pkl"]
    if any(name.rpartition("/")[2] == "constants.pkl" for name in records):
        raise Malformed(
            "is a TorchScript archive, which is a program; save the model's state_dict() "
            "with torch.save instead"
        )
    if not pickled:
        raise Malformed("is a zip archive, but not one that torch.save wrote")
    prefix = pickled[0].removesuffix("data.pkl")
    order: Literal["<", ">"] = "<"
    if prefix + "byteorder" in records and bytes(records[prefix + "byteorder"]()) == b"big":
        order = ">"
    storages: dict[str, Storage] = {}

    def persistent(key: Any) -> _TypedStorage:
        type_, name, _ = _storage_id(key)
        record = f"{prefix}data/{name}"
        if record not in records:
            raise Malformed(f"is incomplete: it has no record {shown(record)}")
        if name not in storages:
            storages[name] = Storage(records[record], order)
        return _TypedStorage(storages[name], type_)

    raw = bytes(records[pickled[0]]())
    return pickles.load(io.BytesIO(raw), len(raw), calls=CALLS, persistent=persistent)


def read_legacy(data: memoryview, stream: Stream) -> Any:
    """Reads the format before PyTorch 1.6; arguments and result are those of `read_zip`."""
    return _legacy(data, stream, CALLS)


def _legacy(data: memoryview, stream: Stream, calls: Calls) -> Any:
    storages: dict[str, tuple[Storage, str]] = {}

    def persistent(key: Any) -> Any:
        if isinstance(key, tuple) and key[:1] == ("module",):
            return Opaque("module")  # the source code of a pickled class
        type_, name, view = _storage_id(key)
        if name not in storages:
            storages[name] = (Storage(lambda: b"", order), type_)
        offset = sizes((view[1],))[0] if isinstance(view, tuple) and len(view) == 3 else 0
        return _TypedStorage(storages[name][0], type_, offset)

    def next_pickle() -> Any:
        return pickles.load(stream, len(data), calls=calls, persistent=persistent)

    order: Literal["<", ">"] = "<"
    next_pickle()
    version, machine = next_pickle(), next_pickle()
    if version != 1001 or not isinstance(machine, dict):
        raise Malformed("is a torch file of an unknown version")
    if machine.get("little_endian") is False:
        order = ">"
    root, keys = next_pickle(), next_pickle()
    if not isinstance(keys, list) or sorted(map(str, keys)) != sorted(storages):
        raise Malformed("is a corrupt torch file: its storages are not those that it lists")
    position = stream.tell()
    for storage, type_ in (storages[str(key)] for key in keys):
        if type_ not in TYPES:
            raise Malformed(f"holds tensors of {type_}, which is no weight")
        storage.data = _counted(data[position:], order, TYPES[type_].itemsize)
        position += 8 + len(storage.data)
    return root


def _counted(data: memoryview, order: str, item_bytes: int) -> memoryview:
    """Cuts a storage off: the number of its elements, then their bytes."""
    if len(data) < 8:
        raise Malformed("is a truncated torch file")
    (count,) = struct.unpack_from(order + "q", data)
    end = 8 + count * item_bytes
    if not 8 <= end <= len(data):
        raise Malformed(f"is truncated: a storage has {end} bytes, {len(data)} are left")
    return data[8:end]


def _storage_id(key: Any) -> tuple[str, str, Any]:
    """Parses ("storage", type, key, location, count[, view]) to type, key, view."""
    if not isinstance(key, tuple) or len(key) < 5 or key[0] != "storage":
        raise Malformed("is a corrupt torch file: a tensor refers to no storage")
    type_, name = key[1], key[2]
    if not isinstance(type_, Global) or type_.name not in _STORAGE_TYPES:
        raise Malformed("is a corrupt torch file: a storage of no type")
    if not isinstance(name, str) or len(name) > 200:
        raise Malformed("is a corrupt torch file: a storage without a name")
    return _STORAGE_TYPES[type_.name], name, key[5] if len(key) > 5 else None


def _records(data: memoryview, stream: Stream) -> Mapping[str, Callable[[], memoryview]]:
    """The entries of a zip archive by name; each is checked against its CRC when read."""
    try:
        with zipfile.ZipFile(cast(IO[bytes], stream)) as archive:
            infos = archive.infolist()
    except (zipfile.BadZipFile, NotImplementedError, ValueError, OSError) as problem:
        raise Malformed(
            f"is a truncated or corrupt zip archive ({shown(problem)})"
        ) from problem
    except struct.error as problem:
        raise Malformed("is a corrupt zip archive") from problem
    return {info.filename: _reader(data, info) for info in infos}


def _reader(data: memoryview, info: zipfile.ZipInfo) -> Callable[[], memoryview]:
    def read() -> memoryview:
        name = shown(info.filename)
        if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1:
            raise Malformed(f"has a compressed record {name}, which torch.save never writes")
        start = info.header_offset + 30
        if bytes(data[info.header_offset : info.header_offset + 4]) != b"PK\x03\x04":
            raise Malformed(f"is a corrupt zip archive: no header of {name}")
        if start > len(data):
            raise Malformed("is a truncated zip archive")
        start += sum(struct.unpack_from("<HH", data, start - 4))
        record = data[start : start + info.file_size]
        if len(record) != info.file_size or zlib.crc32(record) != info.CRC:
            raise Malformed(f"is corrupt: record {name} was altered or cut")
        return record

    return read


def _rebuild_tensor(
    storage: Any, offset: Any, shape: Any, strides: Any, *_: Any, type_: str | None = None
) -> StoredTensor:
    if not isinstance(storage, _TypedStorage):
        raise Malformed("is a corrupt torch file: a tensor without storage")
    (start,) = sizes((offset,))
    return StoredTensor(
        storage.storage,
        type_ or storage.type,
        storage.offset + start,
        sizes(shape),
        sizes(strides),
    )


def _rebuild_tensor_v3(
    storage: Any,
    offset: Any,
    shape: Any,
    strides: Any,
    grad: Any,
    hooks: Any,
    dtype: Any,
    *_: Any,
) -> StoredTensor:
    """Newer types have no storage class of their own; the tensor names its dtype."""
    name = dtype.name if isinstance(dtype, Global) else "nothing"
    return _rebuild_tensor(storage, offset, shape, strides, type_=name)


def _rebuild_from_type(rebuild: Any, kind: Any, arguments: Any, *_: Any) -> StoredTensor:
    """A tensor that has Python attributes wraps another way of rebuilding it."""
    tensor: StoredTensor = _REBUILD[rebuild](*arguments)
    return tensor


def _storage_from_bytes(raw: Any) -> Any:
    """A storage pickled by the plain `pickle` module is a legacy file of its own."""
    if not isinstance(raw, bytes) or not raw.startswith(LEGACY_MAGIC):
        raise Malformed("is a corrupt pickle: a tensor without storage")
    return _legacy(memoryview(raw), io.BytesIO(raw), _NAMES)


_REBUILD: Calls = {
    Global("torch._utils", "_rebuild_tensor"): _rebuild_tensor,
    Global("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
    Global("torch._utils", "_rebuild_tensor_v3"): _rebuild_tensor_v3,
    Global("torch._utils", "_rebuild_parameter"): lambda data, *_: data,
    Global("torch._utils", "_rebuild_parameter_with_state"): lambda data, *_: data,
}


def _name(*_: Any) -> Any:
    raise Malformed("is a corrupt pickle: a type that is used as a function")


_NAMES: Calls = {
    **PLAIN,
    **{
        Global(module, name): _name
        for module in ("torch", "torch.cuda", "torch.storage")
        for name in _STORAGE_TYPES
    },
    **{Global("torch", name): _name for name in _DTYPES},
}
"""Types that a torch file only mentions, and what it may have constructed beside tensors."""

CALLS: Calls = {
    **_REBUILD,
    **_NAMES,
    Global("torch._tensor", "_rebuild_from_type_v2"): _rebuild_from_type,
    Global("torch.storage", "_load_from_bytes"): _storage_from_bytes,
}
"""All constructors, for `pickles.load`."""
