"""Bad input: one clear sentence, the right exit code, nothing half-written, no traceback."""

import errno
import json
import os
import pickle
import resource
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image

from m2f.models.checkpoint import write_official
from tests.cli.conftest import TINY
from tests.weights import synthetic


class Payload:
    """Unpickling this makes a folder."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


def truncated(path, checkpoint):
    path.write_bytes(checkpoint.read_bytes()[:-1000])


def corrupt(path, checkpoint):
    path.write_bytes(os.urandom(64) + checkpoint.read_bytes()[64:])


def empty(path, checkpoint):
    path.write_bytes(b"")


def hostile(path, checkpoint):
    path.write_bytes(pickle.dumps({"model": Payload(path.parent / "payload-ran")}))


def another_architecture(path, checkpoint):
    weights = {"fc.weight": np.zeros((10, 3), np.float32), "fc.bias": np.zeros(10, np.float32)}
    path.write_bytes(pickle.dumps({"model": weights}))


def incomplete(path, checkpoint):
    model = pickle.loads(checkpoint.read_bytes())
    del model["model"]["sem_seg_head.predictor.decoder_norm.weight"]
    path.write_bytes(pickle.dumps(model))


def not_finite(path, checkpoint):
    weights = dict(synthetic(TINY))
    weights["pixel_decoder.level_embed"] = np.full((3, 32), np.nan, np.float32)
    write_official(weights, path)


@pytest.mark.parametrize(
    "make",
    [truncated, corrupt, empty, hostile, another_architecture, incomplete, not_finite],
    ids=lambda make: make.__name__,
)
def test_checkpoint(refused, checkpoint, tmp_path, make):
    path = tmp_path / "bad.pkl"
    make(path, checkpoint)
    line = refused("export", path, "-o", tmp_path / "out.m2f", code=2)
    assert "bad.pkl" in line
    assert [p.name for p in tmp_path.iterdir()] == ["bad.pkl"]  # no bundle, no payload
    refused("inspect", path, code=2)


def test_no_checkpoint(refused, tmp_path):
    refused("export", tmp_path / "none.pkl", "-o", tmp_path / "out.m2f", code=3)
    refused("inspect", tmp_path / "none.pkl", code=3)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("--size", "512x"), "not a size"),
        (("--batch", "8:1"), "must rise"),
        (("--min", "512x512", "--max", "256x256"), ""),
        (("--size", "256x256", "--max", "512x512"), "not both"),
        (("--preset", "coco-panoptic-r5"), "coco-panoptic-r50"),
        (("--preset", "coco-panoptic-r50"), ""),
    ],
)
def test_export_options(m2f, checkpoint, tmp_path, words, text):
    result = m2f("export", checkpoint, "-o", tmp_path / "out.m2f", *words, code=2)
    assert text in result.stderr
    assert not any(tmp_path.iterdir())


def a_folder_that_is_none(bundle, edit):
    for file in bundle.iterdir():
        file.unlink()


def no_model(bundle, edit):
    (bundle / "model.onnx").unlink()


def altered_model(bundle, edit):
    path = bundle / "model.onnx"
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.write_bytes(raw)


def shortened_model(bundle, edit):
    path = bundle / "model.onnx"
    path.write_bytes(path.read_bytes()[:-1])


def unknown_op_version(bundle, edit):
    edit(lambda raw: raw["ops"][0].update(version=99))


def unknown_op(bundle, edit):
    edit(lambda raw: raw["ops"][0].update(name="Surprise"))


def later_format(bundle, edit):
    edit(lambda raw: raw.update(format_version=99))


def manifest_cut_off(bundle, edit):
    path = bundle / "manifest.json"
    path.write_text(path.read_text()[:-20])


def manifest_of_another_kind(bundle, edit):
    (bundle / "manifest.json").write_text("[]")


def file_outside(bundle, edit):
    edit(lambda raw: raw["files"][0].update(name="../model.onnx"))


BUNDLES = [
    (a_folder_that_is_none, 3),
    (no_model, 2),
    (altered_model, 2),
    (shortened_model, 2),
    (unknown_op_version, 2),
    (unknown_op, 2),
    (later_format, 2),
    (manifest_cut_off, 2),
    (manifest_of_another_kind, 2),
    (file_outside, 2),
]


@pytest.mark.parametrize(
    ("damage", "code"), BUNDLES, ids=lambda value: getattr(value, "__name__", None)
)
def test_bundle(refused, bundle, edit_manifest, photo, tmp_path, damage, code):
    damage(bundle, edit_manifest)
    line = refused("run", bundle, photo, "-o", tmp_path / "out", code=code)
    assert "tiny.m2f" in line
    assert not (tmp_path / "out").exists()


def test_no_bundle(refused, photo, tmp_path):
    refused("run", tmp_path / "none.m2f", photo, "-o", tmp_path / "out", code=3)
    assert not any(tmp_path.iterdir())


def gray(path):
    Image.new("L", (33, 20), 128).save(path)


def rgba(path):
    Image.new("RGBA", (33, 20), (200, 100, 50, 128)).save(path)


def sixteen_bit(path):
    Image.fromarray(np.arange(660, dtype=np.uint16).reshape(20, 33) * 99).save(path)


def one_pixel(path):
    Image.new("RGB", (1, 1), "red").save(path)


def rotated(path):
    exif = Image.Exif()
    exif[0x0112] = 6  # shown turned by a quarter
    Image.new("RGB", (20, 33), "green").save(path, exif=exif)


@pytest.mark.parametrize(
    ("make", "size"),
    [
        (gray, [20, 33]),
        (rgba, [20, 33]),
        (sixteen_bit, [20, 33]),
        (one_pixel, [1, 1]),
        (rotated, [20, 33]),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_unusual_images_work(m2f, exported, tmp_path, make, size):
    path = tmp_path / "image.png"
    make(path)
    report = json.loads(m2f("run", exported, path, "-o", tmp_path / "out", "--json").stdout)
    assert report["images"][0]["size"] == size


def huge(path):
    Image.new("1", (20000, 20000)).save(path)


def text(path):
    path.write_text("not an image")


def nothing(path):
    path.write_bytes(b"")


def cut_off(path):
    gray(path)
    path.write_bytes(path.read_bytes()[:-20])


@pytest.mark.parametrize("make", [huge, text, nothing, cut_off], ids=lambda m: m.__name__)
def test_unusable_image(refused, exported, tmp_path, make):
    path = tmp_path / "image.png"
    make(path)
    assert "image.png" in refused("run", exported, path, "-o", tmp_path / "out", code=2)
    assert not (tmp_path / "out").exists()


def test_no_image(refused, exported, tmp_path):
    for name in ("none.png", "none/*.png", tmp_path):
        refused("run", exported, name, "-o", tmp_path / "out", code=3)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("place", ["/proc/m2f-out", "{tmp}/file/out"])
def test_place_that_cannot_be_written(refused, checkpoint, exported, photo, tmp_path, place):
    """Also for root, whom permissions do not stop."""
    (tmp_path / "file").write_text("in the way")
    out = place.format(tmp=tmp_path)
    assert "cannot be written" in refused("export", checkpoint, "-o", out, code=3)
    assert "cannot be written" in refused("run", exported, photo, "-o", out, code=3)
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_what_is_there_is_not_replaced(refused, checkpoint, exported, photo, tmp_path):
    (tmp_path / "file").write_text("mine")
    refused("export", checkpoint, "-o", tmp_path / "file", "--overwrite", code=2)
    refused("export", checkpoint, "-o", tmp_path, "--overwrite", code=2)
    refused("run", exported, photo, "-o", tmp_path / "file", code=2)
    assert (tmp_path / "file").read_text() == "mine"


def full(*args, **options):
    raise OSError(errno.ENOSPC, "No space left on device")


def test_full_disk(refused, checkpoint, exported, photo, tmp_path, monkeypatch):
    monkeypatch.setattr("pathlib.Path.write_bytes", full)
    line = refused("export", checkpoint, "-o", tmp_path / "out.m2f", code=3)
    assert "the disk is full" in line
    monkeypatch.setattr("PIL.Image.Image.save", full)
    line = refused("run", exported, photo, "-o", tmp_path / "out", code=3)
    assert "the disk is full" in line
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == []


# PyTorch is imported first, so that a signal meets our code and not its loading.
MAIN = "import torch, sys; from m2f.cli import main; sys.argv[0] = 'm2f'; main()"


def start(*words, before=lambda: None):
    """Starts a command of its own; ``before`` runs in the new process."""

    def prepare():
        # A process in the background ignores SIGINT, and so would what it starts.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        before()

    command = [sys.executable, "-c", MAIN, *map(str, words)]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, preexec_fn=prepare)


def test_writing_that_really_fails(checkpoint, tmp_path):
    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

    process = start("export", checkpoint, "-o", tmp_path / "out.m2f", before=limit)
    _, stderr = process.communicate(timeout=120)
    assert process.returncode == 3
    assert "out.m2f: cannot be written: File too large" in stderr
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 128 + signal.SIGTERM)]
)
def test_interrupted_export(checkpoint, tmp_path, number, code):
    process = start("export", checkpoint, "-o", tmp_path / "out.m2f")
    deadline = time.monotonic() + 120
    while not any(tmp_path.iterdir()) and time.monotonic() < deadline:
        time.sleep(0.005)
    process.send_signal(number)
    _, stderr = process.communicate(timeout=120)
    assert process.returncode == code, stderr
    assert "Traceback" not in stderr
    assert not any(tmp_path.iterdir())


def test_interrupted_replacement_keeps_the_old_bundle(checkpoint, bundle):
    before = sorted((p.name, p.read_bytes()) for p in bundle.iterdir())
    process = start("export", checkpoint, "-o", bundle, "--overwrite")
    deadline = time.monotonic() + 120
    while len(list(bundle.parent.iterdir())) == 1 and time.monotonic() < deadline:
        time.sleep(0.005)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=120)
    assert process.returncode == 130
    assert [p.name for p in bundle.parent.iterdir()] == [bundle.name]
    assert sorted((p.name, p.read_bytes()) for p in bundle.iterdir()) == before


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root")
def test_a_disk_that_is_really_full(checkpoint, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("this machine does not let us mount a small disk")
    try:
        process = start("export", checkpoint, "-o", disk / "out.m2f")
        _, stderr = process.communicate(timeout=120)
        assert process.returncode == 3
        assert "the disk is full" in stderr
        assert not any(disk.iterdir())
    finally:
        subprocess.run(["umount", str(disk)], check=True)
