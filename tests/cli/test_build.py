"""`m2f build`: what it prints, and that nothing unfinished is left when it is stopped."""

import json
import resource
import shutil
import signal
import time
from pathlib import Path

import pytest

from m2f.bundle import Bundle
from m2f.calib.sibling import path_of, sibling
from m2f.engine import engines
from tests.cli.test_bad_input import start
from tests.export.rtx import needs_rtx

WORDS = ("--target", "tensorrt-rtx", "--compute", "8.9", "--min", "64x64", "--max", "96x128")


def entries(folder):
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def test_build(m2f, bundle):
    needs_rtx()
    report = json.loads(m2f("build", bundle, *WORDS, "--batch", "1", "--json").stdout)
    assert report["is_new"]
    assert report["record"]["key"]["compute"] == [89]
    assert report["record"]["key"]["sizes"]["max"] == [1, 96, 128]
    again = m2f("build", bundle, *WORDS, "--batch", "1")
    assert "is there already" in again.stdout
    assert "1x64x64 to 1x96x128" in again.stdout
    assert "convolution" in again.stdout or "shuffle" in again.stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "compute"),
    [
        (("convert",), "75,80,86,89,120,121"),
        (("convert", "--precision", "bf16"), "80,86,89,120,121"),
        (("calibrate", "--rest", "fp16"), "75,80,86,89,120,121"),
        (("calibrate", "--rest", "bf16"), "80,86,89,120,121"),
        (("calibrate", "--rest", "fp16", "--fp8"), "89,120,121"),
    ],
)
def test_every_precision(m2f, small, photos, tmp_path, words, compute):
    """By the commands people give, in the plugin form, whose functions are inlined."""
    needs_rtx()
    out = tmp_path / "precise.m2f"
    verb, *how = words
    m2f(verb, small, "-o", out, "--images", photos, *how)
    wanted = (*WORDS[:2], "--compute", compute, *WORDS[4:], "--batch", "1")
    record = json.loads(m2f("build", out, *wanted, "--json").stdout)["record"]
    assert ",".join(map(str, record["key"]["compute"])) == compute
    products = {x["precision"] for x in record["layers"] if x["kind"] == "matrix_multiply"}
    half = "bf16" if "bf16" in words else "fp16"
    eight = {"fp8" if "--fp8" in words else "int8"} if verb == "calibrate" else set()
    assert products == {half} | eight


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("--compute", "eight"), "no list of compute capabilities"),
        (("--target", "tensorflow"), "tensorrt-rtx"),
        (("--level", "6"), "less than or equal to 5"),
        (("--max", "96x"), "not a size"),
    ],
)
def test_options(m2f, bundle, words, text):
    before = entries(bundle)
    assert text in m2f("build", bundle, *words, code=2).stderr
    assert entries(bundle) == before


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_a_precision_is_made_first(m2f, small, photos, tmp_path, precision):
    """Beside the bundle, once; by the conversion or calibration of the other verbs."""
    bundle = shutil.copytree(small, tmp_path / "tiny.m2f")
    place = sibling(bundle, precision, images=[photos])
    manifest = Bundle.open(place).manifest
    assert place.name == f"tiny-{precision}.m2f"
    assert manifest.precision == precision
    assert getattr(manifest.quantization, "base", "fp16") == "fp16"
    before = (place / "model.onnx").stat().st_mtime_ns
    assert sibling(bundle, precision) == place
    assert (place / "model.onnx").stat().st_mtime_ns == before


def test_an_engine_of_a_precision_that_is_made_first(m2f, small, photos, tmp_path):
    needs_rtx()
    bundle = shutil.copytree(small, tmp_path / "tiny.m2f")
    words = (*WORDS, "--batch", "1", "--precision", "int8", "--images", photos)
    place = path_of(bundle, "int8")
    found = m2f("build", bundle, *words)
    assert f"in int8 is {place.name}" in found.stderr.replace("\n", "").replace(
        f"{tmp_path}/", ""
    )
    assert engines(Bundle.open(place))
    assert not (bundle / "engines").exists()
    assert "is there already" in m2f("build", bundle, *words).stdout


def test_precisions_that_cannot_be(refused, small, bundle, tmp_path):
    said = refused("build", bundle, "--precision", "int8", code=2)
    assert "int8 needs ranges from images" in said
    assert "pass fp16, bf16, int8 or fp8" in refused(
        "build", bundle, "--images", tmp_path, code=2
    )
    place = path_of(bundle, "fp16")
    shutil.copytree(small, place)
    assert "is there already and is not" in refused(
        "build", bundle, "--precision", "fp16", code=2
    )
    half = sibling(bundle, "bf16")
    said = refused("build", half, "--precision", "fp16", code=2)
    assert "is in bf16, from which there is no way to fp16" in said


def test_no_bundle_and_no_gpu(refused, bundle, tmp_path):
    refused("build", tmp_path / "none.m2f", code=3)
    if "no NVIDIA driver" not in (line := refused("build", bundle, code=3)):
        assert "tensorrt is not installed" in line


def started(bundle, **how):
    """A build, once the worker is at it."""
    process = start("build", bundle, *WORDS, **how)
    deadline = time.monotonic() + 120
    while not list(bundle.glob("engines/.*/model.onnx")) and time.monotonic() < deadline:
        time.sleep(0.005)
    return process


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interrupted(bundle, number, code):
    needs_rtx()
    before = entries(bundle)
    process = started(bundle)
    process.send_signal(number)
    _, stderr = process.communicate(timeout=120)
    assert process.returncode == code, stderr
    assert "Traceback" not in stderr
    assert entries(bundle) == before


def test_killed(bundle):
    """Not even then does an engine appear; the worker ends with who waits for it."""
    needs_rtx()
    process = started(bundle)
    (worker,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    process.kill()
    process.communicate(timeout=120)
    deadline = time.monotonic() + 60
    while Path(f"/proc/{worker}").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not Path(f"/proc/{worker}").exists()
    assert not list(bundle.glob("engines/*.engine"))


def test_a_disk_that_is_full(bundle):
    needs_rtx()
    before = entries(bundle)
    size = (bundle / "model.onnx").stat().st_size

    def limit():  # the network fits, the engine does not
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + 100_000, size + 100_000))

    process = start("build", bundle, *WORDS, before=limit)
    _, stderr = process.communicate(timeout=120)
    assert process.returncode == 3, stderr
    assert "cannot be written: File too large" in stderr
    assert entries(bundle) == before


def test_engines_of_a_bundle(bundle):
    folder = bundle / "engines"
    folder.mkdir()
    for name in ("a.engine", "a.json", ".b.engine.work"):
        (folder / name).write_text("")
    assert [path.name for path in engines(Bundle.open(bundle))] == ["a.engine"]
