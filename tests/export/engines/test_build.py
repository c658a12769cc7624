"""Engines really built: TensorRT for RTX's builder needs no GPU."""

import dataclasses
import importlib.util
import json
import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from m2f.bundle import Bundle, Range
from m2f.engine import Flags, check_file, read_record
from m2f.errors import (
    BuildError,
    DeviceError,
    MissingDependency,
    MissingFile,
    UsageError,
)
from m2f.export.engines import build
from m2f.export.engines.worker import inspect
from tests.export.engines.conftest import RTX, TENSORRT
from tests.export.rtx import needs_rtx


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def options(**changes):
    return dataclasses.replace(RTX, **changes)


def test_an_engine_and_its_record(built):
    bundle, report = built
    record = read_record(report.engine)
    assert report.is_new
    assert report.engine.parent == bundle / "engines"
    stem = f"sm89-tensorrt-rtx-{'.'.join(record.key.tensorrt.split('.')[:3])}-fp32"
    assert names(bundle / "engines") == [
        f"{stem}.engine",
        f"{stem}.json",
        f"{stem}.layers.json",
    ]
    assert record == report.record
    check_file(report.engine, record)
    assert report.engine.stat().st_size > (bundle / "model.onnx").stat().st_size / 2
    assert record.key.gpu is None
    assert record.key.compute == (89,)
    assert record.key.sizes.max == (2, 96, 128)
    assert record.key.plugins is None  # inlined: no plugin layers in TensorRT for RTX


def test_every_layer_has_a_type(built):
    _, report = built
    layers = json.loads(report.engine.with_suffix(".layers.json").read_text())
    assert sum(layer.count for layer in report.record.layers) == len(layers) > 500
    convolutions = [layer for layer in layers if layer["kind"] == "convolution"]
    assert len(convolutions) > 10
    assert {layer["precision"] for layer in convolutions} == {"fp32"}


def test_the_same_engine_is_not_built_twice(with_engine, monkeypatch):
    bundle, engine = with_engine
    before = engine.stat().st_mtime_ns
    monkeypatch.setattr("m2f.export.engines.process.Worker.build", None)  # would fail
    report = build(bundle, options=RTX)
    assert (report.is_new, report.engine, report.why) == (False, engine, None)
    assert engine.stat().st_mtime_ns == before


def test_progress_is_told(bundle, tmp_path):
    needs_rtx()
    told = []
    small = options(max_size=(64, 64), batch=Range(min=1, max=1))
    report = build(
        bundle, tmp_path / "x.engine", options=small, progress=lambda *a: told.append(a)
    )
    assert report.engine == tmp_path / "x.engine"
    assert report.record.key.sizes.max == (1, 64, 64)
    steps = [(step, steps) for phase, step, steps in told if phase == "Building engine"]
    assert len(steps) > 1
    assert steps == sorted(steps)
    assert all(0 <= step <= steps for _, step, steps in told)
    assert not (bundle / "engines").exists()


def test_other_sizes_lie_beside(with_engine):
    bundle, engine = with_engine
    report = build(bundle, options=options(min_size=(64, 64), max_size=(64, 64)))
    assert report.engine.name == engine.name.replace(".engine", "-1x64x64-to-2x64x64.engine")
    assert engine.is_file()


def test_an_engine_for_several_gpus(bundle):
    needs_rtx()
    report = build(bundle, options=options(compute=(120, 80, 120), max_size=(64, 64)))
    assert report.record.key.compute == (80, 120)
    assert report.engine.name.startswith("sm80-120-")


def damaged(engine):
    engine.write_bytes(engine.read_bytes()[:-1])
    return "bytes, its record says"


def altered(engine):
    raw = bytearray(engine.read_bytes())
    raw[len(raw) // 2] ^= 1
    engine.write_bytes(raw)
    return "was altered: its SHA-256 is"


def without_record(engine):
    engine.with_suffix(".json").unlink()
    return "nothing says what it was built from"


def of_another_network(engine):
    path = engine.with_suffix(".json")
    raw = json.loads(path.read_text())
    raw["key"]["model"] = "0" * 64
    path.write_text(json.dumps(raw))
    return "built from an ONNX file of SHA-256 000000000000..., the bundle holds"


@pytest.mark.parametrize("spoil", [damaged, altered, without_record, of_another_network])
def test_an_engine_that_does_not_fit_is_built_again(with_engine, spoil, monkeypatch):
    bundle, engine = with_engine
    expected = spoil(engine)

    def built(worker, request, progress):
        Path(request.out).write_bytes(b"another")
        return {"layers": [], "log": []}

    monkeypatch.setattr("m2f.export.engines.process.Worker.build", built)
    report = build(bundle, options=RTX)
    assert report.is_new
    assert expected in report.why
    check_file(engine, read_record(engine))
    assert len(names(bundle / "engines")) == 3


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"compute": (87,)}, "compiles for SM75, .* not for SM87"),
        ({"compute": (75, 89)}, "on SM75 .* no matrix products but float16's, and .* is fp32"),
        ({"precision": "int8"}, "is fp32, asked for is int8.*m2f calibrate .* --rest fp16`"),
        ({"precision": "bf16"}, "asked for is bf16.*m2f convert .* --precision bf16`"),
        ({"flags": Flags(hardware_compatible=True)}, "no --hardware-compatible"),
        ({"max_size": (97, 128)}, r"height of 1\.\.97 is not within the bundle's 1\.\.96"),
        ({"batch": Range(min=1, max=3)}, r"batch of 1\.\.3 is not within the bundle's 1\.\.2"),
        ({"opt_size": (200, 64)}, r"1 \(min\), 200 \(opt\), 96 \(max\)"),
    ],
)
def test_impossible_wishes(bundle, changes, text):
    before = names(bundle)
    with pytest.raises(UsageError, match=text):
        build(bundle, options=options(**changes))
    assert names(bundle) == before


@pytest.mark.parametrize(
    ("precision", "base", "compute", "text"),
    [
        ("int8", "fp32", (75, 80), "on SM75 .* is int8 among fp32; leave 75 out"),
        ("int8", "bf16", (75,), "on SM75 .* is int8 among bf16; leave 75 out"),
        ("fp8", "fp16", (75, 80, 86, 89), "begin with SM89, .* for SM75, SM80, SM86; leave"),
    ],
)
def test_gpus_without_such_products(bundle, precision, base, compute, text):
    """Of the layers that are quantised, and of those that are not."""
    path = bundle / "manifest.json"
    raw = json.loads(path.read_text())
    raw |= {"precision": precision, "quantization": QUANTIZATION | {"base": base}}
    path.write_text(json.dumps(raw))
    with pytest.raises(UsageError, match=text):
        build(bundle, options=options(compute=compute))


QUANTIZATION = {
    "target": "tensorrt",
    "method": "mse",
    "images": 8,
    "calibration": "0" * 64,
    "layers": 1,
    "kept": [],
}


def test_what_a_killed_build_left_is_removed_the_next_day(with_engine, monkeypatch):
    """Of the same engine only, and not the folder of a build that may be going on."""
    bundle, engine = with_engine
    kept = [f".{engine.stem}.{end}" for end in ("00c0ffee", "notes", "00C0FFEE")]
    for name in (stale := f".{engine.stem}.0badcafe", *kept, ".other.0badcafe"):
        folder = engine.parent / name
        folder.mkdir()
        (folder / "model.onnx").write_bytes(b"")
        if not name.endswith("00c0ffee"):
            os.utime(folder, times=(0, 0))
    monkeypatch.setattr(
        "m2f.export.engines.process.Worker.build",
        lambda worker, request, progress: (
            Path(request.out).write_bytes(b"another") and {"layers": [], "log": []}
        ),
    )
    build(bundle, options=options(rebuild=True))
    left = names(engine.parent)
    assert stale not in left
    assert {*kept, ".other.0badcafe"} <= set(left)


def test_what_is_no_engine_is_not_replaced_by_one(bundle, tmp_path):
    needs_rtx()
    (tmp_path / "folder.engine").mkdir()
    with pytest.raises(UsageError, match="is no file"):
        build(bundle, tmp_path / "folder.engine", options=RTX)


def test_tensorrt_itself_is_named_where_it_is_missing(bundle, fake_gpu, monkeypatch):
    monkeypatch.setattr(
        "m2f.export.engines.process._IMPORTED_FROM", ("src", str(bundle.parents[0]))
    )
    if importlib.util.find_spec("tensorrt"):
        pytest.skip("TensorRT is installed")
    with pytest.raises(MissingDependency, match=r"tensorrt is not installed; run: pip install"):
        build(bundle)


def test_tensorrt_needs_a_gpu(bundle, monkeypatch):
    monkeypatch.setattr("m2f.gpu.DRIVER", "libcuda-that-is-not-there.so.1")
    with pytest.raises(DeviceError, match="no NVIDIA driver is installed"):
        build(bundle)


def test_tensorrt_builds_for_the_gpu_that_is_there(bundle, fake_gpu, tensorrt_module):
    tensorrt_module()
    report = build(bundle, options=options(target="tensorrt", max_size=(64, 64)))
    key = report.record.key
    assert (key.target, key.tensorrt, key.gpu, key.compute) == (
        "tensorrt",
        "11.4.0",
        "Test RTX 1",
        (89,),
    )
    assert report.engine.name == "test-rtx-1-sm89-tensorrt-11.4.0-fp32-1x1x1-to-2x64x64.engine"
    with pytest.raises(UsageError, match="the GPU that is there, SM89, not for SM86"):
        build(bundle, options=options(target="tensorrt", compute=(86,)))


def test_what_the_inspector_says_is_kept(tmp_path):
    """As on the GPU an engine was built for; elsewhere it cannot be read back."""
    inspector = SimpleNamespace(get_engine_information=lambda format: f"{format}: conv fp16")
    engine = SimpleNamespace(create_engine_inspector=lambda: inspector)
    trt = SimpleNamespace(
        LayerInformationFormat=SimpleNamespace(JSON="json"),
        Runtime=lambda logger: SimpleNamespace(
            deserialize_cuda_engine=lambda plan: engine if plan == b"good" else None
        ),
    )
    inspect(trt, b"bad", None, tmp_path / "bad.json")
    inspect(trt, b"good", None, tmp_path / "good.json")
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [
        ("good.json", "json: conv fp16")
    ]


def test_a_timing_cache(bundle, fake_gpu, tensorrt_module, tmp_path):
    tensorrt_module()
    cache = tmp_path / "kernels.cache"
    small = options(target="tensorrt", compute=(), max_size=(64, 64), timing_cache=cache)
    assert build(bundle, options=small).is_new
    assert cache.stat().st_size > 0
    assert build(bundle, options=dataclasses.replace(small, rebuild=True)).is_new


def test_a_builder_that_dies(bundle, fake_gpu, tensorrt_module):
    text = "import os, sys\nprint('assertion failed', file=sys.stderr)\nos.abort()"
    tensorrt_module(f"{TENSORRT}\ndef Builder(logger):\n    {text.replace(chr(10), '; ')}")
    with pytest.raises(BuildError, match="ended its process by signal 6, saying: assertion"):
        build(bundle)
    assert names(bundle) == ["engines", "manifest.json", "model.onnx"]
    assert names(bundle / "engines") == []


def test_a_network_that_is_refused(bundle, fake_gpu, tensorrt_module):
    """What TensorRT says reaches the user."""
    tensorrt_module(
        f"{TENSORRT}\n"
        "class OnnxParser(OnnxParser):\n"
        "    def parse_from_file(self, path):\n"
        "        return self.parse(b'no network')\n"
    )
    with pytest.raises(BuildError, match=r"cannot read the network: .*[Pp]arse"):
        build(bundle)


def test_no_bundle(tmp_path):
    with pytest.raises(MissingFile):
        build(tmp_path / "none.m2f")


def test_the_bundle_still_opens(built):
    assert Bundle.open(built[0]).manifest.precision == "fp32"
