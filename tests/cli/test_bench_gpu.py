"""`m2f bench --gpu` on the stand-in for a GPU: what it reports, not how fast."""

import json

import pytest

from m2f.bench.gpu import DEPTHS, bench_gpu
from m2f.plugins import trt as plugins
from tests.runtime import toy
from tests.runtime.stand_in import tensorrt
from tests.runtime.stand_in.device import StandInDevice
from tests.runtime.stand_in.engine import write_engine


@pytest.fixture
def bundle(tmp_path):
    path = toy.write(tmp_path / "toy", height=(1, 256), width=(1, 256))
    write_engine(path)
    return path


@pytest.fixture
def device(monkeypatch):
    device = StandInDevice()
    monkeypatch.setattr(plugins, "load", lambda target: tensorrt.module(device))
    monkeypatch.setattr("m2f.bench.gpu.open_device", lambda index: device)
    yield device
    assert device.held() == []


def test_the_report(bundle, device):
    report = bench_gpu(bundle, runs=2)
    names = [way.name for way in report.ways]
    assert names == [
        *("one by one, no graph", "one by one"),
        *(f"{depth} in flight" for depth in DEPTHS),
        "from 1080x1920, resized by the host",  # the stand-in has no kernels here
    ]
    assert all(len(way.times.ms) == 2 and min(way.times.ms) > 0 for way in report.ways)
    assert (report.gpu, report.extent) == ("Test RTX 1", (1, 64, 96))
    # Four slots: inputs, outputs and scratch memory of each at its largest.
    assert report.device_bytes > 4 * 4 * 128 * 192 * 3
    assert report.record.key.compute == (89,)


def test_the_command(m2f, bundle, device, tmp_path):
    out = tmp_path / "gpu.json"
    text = m2f("bench", bundle, "--gpu", "--size", "32x32", "--runs", "1", "-o", out).stdout
    assert "input 1x32x32" in text
    assert "2 in flight" in text
    raw = json.loads(out.read_text())
    assert raw["record"]["key"]["gpu"] == "Test RTX 1"
    assert raw["machine"]["machine"]["cores"]


def test_what_cannot_be_timed(refused, bundle, monkeypatch):
    monkeypatch.setattr("m2f.gpu.DRIVER", "libcuda-that-is-not-there.so.1")
    assert "--gpu times one bundle, got 0" in refused("bench", "--gpu", code=2)
    assert "no NVIDIA driver" in refused("bench", bundle, "--gpu", code=3)
