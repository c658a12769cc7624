"""Files that try to run code, or to use more memory than they have bytes."""

import io
import os
import pickle
import struct
import zipfile

import numpy as np
import pytest

from m2f.errors import CheckpointError
from m2f.models.checkpoint import read
from m2f.models.checkpoint.torch_file import LEGACY_MAGIC


class Call:
    """Pickled as a call of ``function``."""

    def __init__(self, function, *arguments):
        self.function, self.arguments = function, arguments

    def __reduce__(self):
        return self.function, self.arguments


def by_name(module, name, argument, *, protocol=4):
    """A pickle that calls module.name(argument) without either existing here."""
    text = argument.encode()
    if protocol == 0:  # a list of one, made by the oldest instruction that calls: INST
        return b"(l(V" + text + b"\ni" + f"{module}\n{name}\n".encode() + b"a."
    short = [struct.pack("B", len(part)) + part for part in (module.encode(), name.encode())]
    return (
        b"\x80\x04\x8c" + short[0] + b"\x8c" + short[1] + b"\x93"
        b"X" + struct.pack("<I", len(text)) + text + b"\x85R."
    )


def payloads(target):
    """Pickles each of which would create ``target`` if anything in it ran."""
    command = f"touch {target}"
    code = f"open({str(target)!r}, 'w').close()"
    objects = np.empty(1, object)
    objects[0] = Call(os.system, command)
    yield "posix.system", pickle.dumps({"model": Call(os.system, command)})
    yield "posix.system", pickle.dumps({"model": Call(os.system, command)}, 0)
    yield "posix.system", pickle.dumps({"model": {"w": objects}})
    yield "posix.system", pickle.dumps({Call(os.system, command): 1})
    yield "builtins.eval", pickle.dumps({"model": Call(eval, code)}, 2)
    yield "builtins.exec", pickle.dumps([Call(exec, code)])
    yield "builtins.getattr", pickle.dumps(Call(getattr, Call(__import__, "os"), "system"))
    yield "builtins.getattr", by_name("builtins", "getattr", command)
    yield "os.system", by_name("os", "system", command)
    yield "os.system", by_name("os", "system", command, protocol=0)
    yield "subprocess.Popen", by_name("subprocess", "Popen", command)
    yield "torch.load", by_name("torch", "load", str(target))
    yield "torch.hub.load", by_name("torch.hub", "load", str(target))
    yield "numpy.load", by_name("numpy", "load", str(target))
    yield "numpy.testing", by_name("numpy.testing._private.utils", "runstring", code)
    yield (
        "numpy.core.multiarray._reconstruct.__globals__",
        by_name("numpy.core.multiarray", "_reconstruct.__globals__", command),
    )
    yield "builtins.type", by_name("builtins", "type", command)
    yield "operator.attrgetter", by_name("operator", "attrgetter", "system")
    yield "functools.partial", by_name("functools", "partial", command)
    yield "mmengine", by_name("mmengine\nos", "system", command)
    yield "pickle.loads", by_name("pickle", "loads", command)
    yield "torch.nn.modules", by_name("torch.nn.modules.linear", "Linear", command)


def torch_zip(pickled, *, compression=zipfile.ZIP_STORED, **records):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", compression) as archive:
        archive.writestr("archive/data.pkl", pickled)
        for name, content in records.items():
            archive.writestr(f"archive/data/{name}", content)
    return stream.getvalue()


def torch_legacy(pickled):
    facts = {"protocol_version": 1001, "little_endian": True, "type_sizes": {}}
    head = LEGACY_MAGIC + pickle.dumps(1001, 2) + pickle.dumps(facts, 2)
    return head + pickled + pickle.dumps([], 2)


CONTAINERS = {"pickle": bytes, "zip": torch_zip, "legacy": torch_legacy}


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize("number", range(len(list(payloads("x")))))
def test_a_hostile_pickle_is_refused_and_nothing_runs(tmp_path, container, number):
    target = tmp_path / "ran"
    name, pickled = list(payloads(target))[number]
    path = tmp_path / "model_final.pkl"
    path.write_bytes(CONTAINERS[container](pickled))
    with pytest.raises(CheckpointError) as caught:
        read(path)
    assert not target.exists()
    assert str(path) in str(caught.value)
    assert name in str(caught.value)
    assert "refused" in str(caught.value)


def test_the_payload_would_have_run(tmp_path):
    target = tmp_path / "ran"
    _, pickled = next(payloads(target))
    pickle.loads(pickled)
    assert target.exists()


def refuses(path, content, match):
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=match) as caught:
        read(path)
    assert str(path) in str(caught.value)


def test_other_codecs_are_refused(tmp_path):
    import codecs

    pickled = pickle.dumps({"model": Call(codecs.encode, "x", "rot13")}, 4)
    refuses(tmp_path / "a.pkl", pickled, "codec")


def test_the_extension_registry_is_refused(tmp_path):
    refuses(tmp_path / "a.pkl", b"\x80\x02\x82\x01.", "EXT1")


def test_state_cannot_be_set_on_what_is_named(tmp_path):
    # BUILD on the name of one of our own constructors: there is no object to change.
    pickled = b"\x80\x02}U\x01wctorch._utils\n_rebuild_tensor_v2\n}U\x0c__defaults__Nsbs."
    refuses(tmp_path / "a.pkl", pickled, "no weights")


def tensor_pickle(*, shape, strides, offset=0, kind=b"FloatStorage", key=b"0"):
    """``{"model": {"w": tensor}}`` as torch pickles it, with any numbers."""

    def tuple_of(numbers):
        return b"(" + b"".join(b"I%d\n" % n for n in numbers) + b"t"

    return (
        b"\x80\x02}U\x05model}U\x01wctorch._utils\n_rebuild_tensor_v2\n((U\x07storagectorch\n"
        + kind
        + b"\nU"
        + bytes([len(key)])
        + key
        + b"U\x03cpuK\x04tQI%d\n" % offset
        + tuple_of(shape)
        + tuple_of(strides)
        + b"\x89NtRss."
    )


@pytest.mark.parametrize(
    "numbers",
    [
        {"shape": (1 << 30, 1 << 9), "strides": (0, 0)},
        {"shape": (1 << 62,), "strides": (1,)},
        {"shape": (1 << 39, 1 << 39, 1 << 39), "strides": (0, 0, 0)},
        {"shape": (2, 2), "strides": (1 << 39, 1)},
        {"shape": (2,), "strides": (1,), "offset": 1 << 39},
        {"shape": (2,), "strides": (-1,), "offset": 3},
        {"shape": (-1,), "strides": (1,)},
        {"shape": (2,), "strides": (1,), "offset": -1},
        {"shape": (5,), "strides": (1,)},
        {"shape": (4,), "strides": (1, 1)},
        {"shape": (1,) * 1000, "strides": (1,) * 1000},
    ],
)
def test_shapes_that_the_file_cannot_fill(tmp_path, numbers):
    from m2f.models.checkpoint.container import open_file
    from m2f.models.checkpoint.stored import Malformed

    path = tmp_path / "a.pth"
    path.write_bytes(torch_zip(tensor_pickle(**numbers), **{"0": bytes(16)}))
    with pytest.raises((CheckpointError, Malformed)):
        open_file(path).weights["w"].array()


def test_records_outside_the_archive(tmp_path):
    pickled = tensor_pickle(shape=(4,), strides=(1,), key=b"../../../etc/passwd")
    refuses(tmp_path / "a.pth", torch_zip(pickled), "no record")


def test_zip_bombs(tmp_path):
    bomb = torch_zip(bytes(1 << 22), compression=zipfile.ZIP_DEFLATED)
    assert len(bomb) < 1 << 15
    refuses(tmp_path / "a.pth", bomb, "compressed")


@pytest.mark.parametrize(
    "pickled",
    [
        # One long text, encoded again and again: eight bytes of pickle for each copy.
        b"\x80\x02X" + struct.pack("<I", 1 << 20) + b"x" * (1 << 20) + b"q\x000"
        b"c_codecs\nencode\nq\x01U\x06latin1q\x02" + b"h\x01h\x00h\x02\x86R0" * 1000 + b".",
        # One long list of pairs, made a dict again and again.
        b"\x80\x02(" + b"K\x01K\x01\x86" * 50_000 + b"lq\x000ccollections\nOrderedDict\nq\x01"
        b"0" + b"h\x01h\x00\x85R0" * 1000 + b"N.",
        # One long name, looked up again and again.
        b"\x80\x04X" + struct.pack("<I", 1 << 16) + b"a" * (1 << 16) + b"q\x00h\x00\x93.",
    ],
    ids=["text", "dict", "name"],
)
def test_small_files_cannot_ask_for_much_memory(tmp_path, pickled):
    refuses(tmp_path / "a.pkl", pickled, r"more memory|endless name")


@pytest.mark.parametrize(
    "pickled",
    [
        b"\x80\x02r\xff\xff\xff\xff.",  # stores at the highest index
        b"\x80\x02Nr\xff\xff\xff\xff.",
        b"\x80\x04\x8e" + struct.pack("<Q", 1 << 62) + b"x.",  # bytes that are not there
        b"\x80\x04\x96" + struct.pack("<Q", 1 << 62) + b"x.",
        b"\x80\x04\x95" + struct.pack("<Q", 1 << 62) + b"N.",
        b"\x80\x02" + b"(" * 100_000 + b".",
        b"\x80\x02}(" + b"]" * 3 + b"u.",
        b"\x80\x02K\x01" + b"\x85" * 200_000 + b".",  # tuples in tuples
        b"\x80\x02}K\x01" + b"\x85" * 200_000 + b"K\x01s.",  # as the key of a dict
        b"\x80\x02cnumpy\ndtype\n)R.",
        b"\x80\x02cnumpy\nndarray\n)R.",
        b"\x80\x02R.",
        b"\x80\x020.",
        b"\x80\x02e.",
        b"\x80\x02h\x07.",
        b"\x80\x02\x93.",
        b"\x80\x02K\x01K\x01\x93.",
    ],
)
def test_corrupt_pickles_end_in_one_sentence(tmp_path, pickled):
    refuses(tmp_path / "a.pkl", pickled, "is|holds")


def test_names_are_only_names(tmp_path):
    from m2f.models.checkpoint.safetensors_file import write

    hostile = "../../\x1b[2J'; import os; os.system('touch ran')"
    stream = io.BytesIO()
    write({hostile: np.ones(2, np.float32)}, stream)
    refuses(tmp_path / "model.safetensors", stream.getvalue(), "not a Mask2Former")
    with pytest.raises(CheckpointError) as caught:
        read(tmp_path / "model.safetensors")
    assert "\x1b" not in str(caught.value)


def header(**entry):
    import json

    text = json.dumps({"w": entry}).encode()
    return struct.pack("<Q", len(text)) + text


@pytest.mark.parametrize(
    "content",
    [
        header(dtype="F32", shape=[1 << 39, 1 << 39], data_offsets=[0, 4]) + bytes(4),
        header(dtype="F32", shape=[2], data_offsets=[0, 4]) + bytes(4),
        header(dtype="F32", shape=[1], data_offsets=[0, 4]) + bytes(3),
        header(dtype="F32", shape=[1], data_offsets=[4, 0]) + bytes(4),
        header(dtype="F32", shape=[-1], data_offsets=[0, 4]) + bytes(4),
        header(dtype="F32", shape="1", data_offsets=[0, 4]) + bytes(4),
        header(dtype="F32", shape=[1], data_offsets=[0, 1 << 63]) + bytes(4),
        header(dtype="F32", shape=[1]) + bytes(4),
        header(dtype=["F32"], shape=[1], data_offsets=[0, 4]) + bytes(4),
        struct.pack("<Q", 1 << 26) + b"{}",
        struct.pack("<Q", 8) + b"{" + b"[" * 7,
        struct.pack("<Q", 400_000) + b'{"a":' + b"[" * 399_995,
        struct.pack("<Q", 2) + b"{}",
    ],
)
def test_corrupt_safetensors(tmp_path, content):
    refuses(tmp_path / "model.safetensors", content, "corrupt|truncated|no weights")
