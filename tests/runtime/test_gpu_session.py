"""`m2f.load(..., device="cuda")` on the stand-in: which engine, why not, and pipelining."""

import hashlib
import json

import numpy as np
import pytest

import m2f
from m2f.bundle import MODEL, Bundle, write_manifest
from m2f.engine import Flags, Sizes
from m2f.errors import EngineError, ImageError, MissingDependency, MissingFile
from m2f.plugins import trt as plugins
from m2f.runtime.backend_trt import TrtBackend
from m2f.runtime.trt_engine import find_engine
from tests.runtime import toy
from tests.runtime.stand_in import tensorrt
from tests.runtime.stand_in.device import StandInDevice
from tests.runtime.stand_in.engine import write_engine


@pytest.fixture
def device(monkeypatch):
    """A machine with this GPU, TensorRT 11.4 and TensorRT for RTX."""
    device = StandInDevice()
    monkeypatch.setattr("m2f.runtime.device.open_device", lambda index: device)
    monkeypatch.setattr(plugins, "load", lambda target: tensorrt.module(device))
    yield device
    assert device.held() == []


@pytest.fixture
def bundle(tmp_path):
    return toy.write(tmp_path / "toy", batch=(1, 4), height=(1, 128), width=(1, 192))


def pictures():
    sizes = [(64, 96), (40, 60), (128, 192), (33, 47), (64, 64), (8, 190), (64, 96)]
    return [toy.picture(*size)[0] for size in sizes]


def test_a_bundle_with_an_engine(bundle, device):
    write_engine(bundle)
    with m2f.load(bundle, threads=1) as cpu, m2f.load(bundle, device="cuda") as session:
        assert session.backend.name == "TensorRT 11.4.0, fp32, Test RTX 1"
        assert cpu.backend.name.startswith("ONNX Runtime")
        for found, expected in zip(session(pictures()), cpu(pictures()), strict=True):
            assert found.size == expected.size
            assert np.array_equal(found.segment_ids, expected.segment_ids)
        alone = session(pictures()[0])
        assert np.array_equal(alone.label_map, toy.picture(64, 96)[1])


def test_the_host_works_while_the_device_does(bundle, device):
    """The second batch is submitted before the first is waited for, and so on."""
    write_engine(bundle, sizes=Sizes(min=(1, 1, 1), opt=(2, 64, 96), max=(2, 128, 192)))
    with m2f.load(bundle, device="cuda") as session:
        calls = []
        submit, finish = session.backend.submit_images, session.segments

        def submitted(*given, **how):
            calls.append("submit")
            return submit(*given, **how)

        def finished(*given, **how):
            calls.append("finish")
            return finish(*given, **how)

        session.backend.submit_images, session.segments = submitted, finished
        session(pictures())
    shown = "".join(call[0] for call in calls)  # two images a batch
    assert shown == "ssffsffsfff"


def test_an_image_that_cannot_be_used_ends_a_list_and_nothing_else(bundle, device):
    write_engine(bundle)
    with m2f.load(bundle, device="cuda") as session:
        good = pictures()
        with pytest.raises(ImageError):
            session([*good[:3], np.zeros((4, 4)), good[4]])
        assert len(session(good)) == len(good)


def test_an_engine_of_fewer_sizes(bundle, device):
    write_engine(bundle, sizes=Sizes(min=(1, 1, 1), opt=(1, 32, 32), max=(1, 64, 64)))
    with m2f.load(bundle, device="cuda") as session:
        assert str(session.profile) == "[1, 1..64, 1..64, 3]"
        image, expected = toy.picture(64, 64)
        assert np.array_equal(session([image, image])[1].label_map, expected)


def test_without_an_engine(bundle, device):
    for backend in ("tensorrt", "tensorrt-rtx"):
        with pytest.raises(MissingFile, match=f"has no engine of {backend}; run: m2f build"):
            m2f.load(bundle, backend=backend)
    with pytest.raises(
        MissingDependency, match="this ONNX Runtime has no CUDAExecutionProvider"
    ):
        m2f.load(bundle, device="cuda")


def test_the_engine_that_fits_is_taken(bundle, device):
    first = write_engine(bundle)
    write_engine(bundle, compute=(75,), gpu="Another")
    write_engine(bundle, tensorrt="10.3.0")
    opened = Bundle.open(bundle)
    assert find_engine(opened, device) == first
    assert find_engine(opened, device, target="tensorrt") == first
    rtx = write_engine(bundle, target="tensorrt-rtx", gpu=None, compute=(86, 89))
    assert find_engine(opened, device, target="tensorrt-rtx") == rtx
    assert find_engine(opened, device, target="tensorrt") == first


def cut_short(engine):
    engine.write_bytes(engine.read_bytes()[:-1])


def altered(engine):
    engine.write_bytes(engine.read_bytes()[::-1])


def without_record(engine):
    engine.with_suffix(".json").unlink()


def with_half_a_record(engine):
    path = engine.with_suffix(".json")
    path.write_text(path.read_text()[:-20])


def with_a_later_record(engine):
    path = engine.with_suffix(".json")
    path.write_text(json.dumps({"record_version": 99}))


@pytest.mark.parametrize(
    ("damage", "text"),
    [
        (cut_short, r"has \d+ bytes, its record says \d+; build it again"),
        (altered, r"was altered: its SHA-256 is \w+..., its record says \w+..."),
        (without_record, "nothing says what it was built from"),
        (with_half_a_record, "is unusable"),
        (with_a_later_record, "record version 99, this program reads 1"),
    ],
)
def test_damaged_engines(bundle, device, damage, text):
    damage(write_engine(bundle))
    with pytest.raises(EngineError, match=text):
        m2f.load(bundle, device="cuda")


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"compute": (75, 86)}, r"built for SM75, SM86, here is SM89 \(Test RTX 1\)"),
        ({"tensorrt": "10.14.1"}, "built for tensorrt 10.14.1, here is 11.4.0"),
        ({"system": "linux-aarch64"}, "built for linux-aarch64, here is "),
        ({"model": "0" * 64}, r"is stale: it was built from an ONNX file of SHA-256 0000"),
        ({"plugins": "1" * 64}, r"plugin library of SHA-256 1111.*, here is none"),
        ({"content": b"nonsense"}, "cannot be loaded: Serialization assertion failed"),
        (
            {"tensorrt": "10.14.1", "flags": Flags(version_compatible=True)},
            "built for tensorrt 10.14.1",
        ),
    ],
)
def test_engines_of_another_machine_or_bundle(bundle, device, changes, text, monkeypatch):
    monkeypatch.setenv(plugins.VARIABLE, "off")
    write_engine(bundle, **changes)
    with pytest.raises(EngineError, match=text):
        m2f.load(bundle, device="cuda")


@pytest.mark.parametrize(
    "changes",
    [
        {"tensorrt": "11.1.0", "flags": Flags(version_compatible=True)},
        {"compute": (86,), "flags": Flags(hardware_compatible=True)},
        {"compute": (75, 89)},
    ],
)
def test_engines_that_were_built_to_travel(bundle, device, changes):
    write_engine(bundle, **changes)
    with m2f.load(bundle, device="cuda") as session:
        assert np.array_equal(session(pictures()[0]).label_map, toy.picture(64, 96)[1])


def test_hardware_compatible_engines_do_not_go_before_ampere(bundle, device):
    device.compute = 75
    write_engine(bundle, flags=Flags(hardware_compatible=True))
    with pytest.raises(EngineError, match="SM80 and newer, here is SM75"):
        m2f.load(bundle, device="cuda")


def test_a_bundle_that_was_made_anew(bundle, device):
    write_engine(bundle)
    manifest = Bundle.open(bundle).manifest
    (bundle / MODEL).write_bytes((bundle / MODEL).read_bytes() + b"\x3a\x00")
    (bundle / "engines").rename(bundle.parent / "engines")  # hashed are files only
    write_manifest(bundle, manifest)
    (bundle.parent / "engines").rename(bundle / "engines")
    with pytest.raises(EngineError, match="is stale"):
        m2f.load(bundle, device="cuda")


def test_kernels_that_rtx_finished_are_kept(bundle, device):
    engine = write_engine(bundle, target="tensorrt-rtx", gpu=None)
    cache = engine.with_suffix(".cache")
    for _ in range(2):
        with m2f.load(bundle, backend="tensorrt-rtx") as session:
            assert session.backend.name.startswith("TensorRT for RTX")
        assert cache.read_bytes() == b"kernels"


def test_a_plugin_library_that_is_loaded(bundle, device, tmp_path, monkeypatch):
    library = tmp_path / "libm2f_trt.so"
    library.write_bytes(b"plugins")
    monkeypatch.setenv(plugins.VARIABLE, str(library))
    engine = write_engine(bundle, plugins=hashlib.sha256(b"plugins").hexdigest())
    loaded = []
    monkeypatch.setattr(plugins, "load_plugins", lambda trt, path: loaded.append(path))
    TrtBackend(engine, device, bundle=Bundle.open(bundle)).close()
    assert loaded == [library]
    library.write_bytes(b"other plugins")
    with pytest.raises(EngineError, match="was built with a plugin library"):
        TrtBackend(engine, device, bundle=Bundle.open(bundle))
