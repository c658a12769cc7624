"""Checkpoint to bundle: what is written, and what is left when something goes wrong."""

import dataclasses
import errno
import json
import shutil

import numpy as np
import pytest

import m2f
from m2f.bundle import CPU_MODEL, MANIFEST, MODEL, WEIGHTS, Bundle, Range
from m2f.config import Preprocess
from m2f.errors import BundleError, CheckFailed, DiskError, ExportError, MissingFile, UsageError
from m2f.export import Options, export, exporter
from tests.export.models import small


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    path = tmp_path_factory.mktemp("bundles") / "small.m2f"
    return export(small("basic_blocks"), path, options=Options(batch=Range(min=1, max=2)))


def test_the_manifest_says_how_the_bundle_was_made(bundle):
    manifest = Bundle.open(bundle.path).manifest
    checkpoint = small("basic_blocks")
    assert manifest.model == checkpoint.config
    assert manifest.metadata == checkpoint.metadata
    assert manifest.source.sha256 == checkpoint.sha256
    assert manifest.form == "plugin"
    assert {op.name for op in manifest.ops} == {"MSDeformAttn", "MaskedAttention"}
    assert {tool.name for tool in manifest.tools} >= {"m2f", "onnx", "torch", "onnxruntime"}
    assert 0 < manifest.parity.mask_error < manifest.parity.limit
    assert [file.name for file in manifest.files] == [CPU_MODEL, MODEL, WEIGHTS]


def test_a_session_of_the_bundle_segments_an_image(bundle):
    image = np.random.default_rng(0).integers(0, 255, (90, 140, 3), np.uint8)
    with m2f.load(bundle.path) as session:
        one = session(image)
        assert one.size == (90, 140)
        assert one.segment_ids.shape == (90, 140)
        assert [p.size for p in session([image, image[:50]])] == [(90, 140), (50, 140)]


def test_an_exported_network_that_differs_is_not_kept(tmp_path, monkeypatch):
    real = exporter.onnx_from_weights

    def wrong(config, weights, **options):
        weights = {n: a * np.float32(1.001) for n, a in weights.items()}
        return real(config, weights, **options)

    monkeypatch.setattr(exporter, "onnx_from_weights", wrong)
    with pytest.raises(CheckFailed, match="differs from PyTorch"):
        export(small("basic_blocks"), tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_a_missing_weight_is_named(tmp_path):
    checkpoint = small("basic_blocks")
    weights = dict(checkpoint.weights)
    del weights["transformer_decoder.norm.weight"]
    with pytest.raises(ExportError, match=r"transformer_decoder\.norm\.weight is missing"):
        export(dataclasses.replace(checkpoint, weights=weights), tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_an_existing_bundle_is_replaced_only_when_asked(bundle, tmp_path):
    path = tmp_path / "b"
    checkpoint, quick = small("basic_blocks"), Options(check=False)
    export(checkpoint, path, options=quick)
    with pytest.raises(UsageError, match="--overwrite"):
        export(checkpoint, path, options=quick)
    options = dataclasses.replace(quick, overwrite=True, form="portable")
    assert export(checkpoint, path, options=options).manifest.form == "portable"
    assert [p.name for p in tmp_path.iterdir()] == ["b"]


def test_what_is_not_a_bundle_is_never_touched(tmp_path):
    (tmp_path / "holiday.jpg").write_bytes(b"precious")
    options = Options(check=False, overwrite=True)
    with pytest.raises(UsageError, match="not a bundle"):
        export(small("basic_blocks"), tmp_path, options=options)
    assert (tmp_path / "holiday.jpg").read_bytes() == b"precious"


def test_a_full_disk_leaves_nothing(tmp_path, monkeypatch):
    def full(*_args, **_kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(exporter, "save", full)
    with pytest.raises(DiskError, match="the disk is full"):
        export(small("basic_blocks"), tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_a_place_that_cannot_be_written_to_is_one_sentence(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(DiskError, match="cannot be written"):
        export(small("basic_blocks"), tmp_path / "file" / "out", options=Options(check=False))


def damaged(bundle, tmp_path, change):
    """A copy of the bundle with its manifest changed."""
    copy = tmp_path / "copy"
    shutil.copytree(bundle.path, copy)
    raw = json.loads((bundle.path / MANIFEST).read_text())
    change(raw)
    (copy / MANIFEST).write_text(json.dumps(raw))
    return copy


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m.update(format_version=99), "bundle format 99, this program reads 1"),
        (lambda m: m["ops"][0].update(version=7), "version 7, this program knows 1"),
        (lambda m: m["ops"][0].update(name="Surprise"), "this program knows none"),
        (lambda m: m.pop("profile"), r"missing fields \['profile'\]"),
        (lambda m: m.update(form="sculpture"), "'sculpture' is none of"),
        (lambda m: m["files"][0].update(sha256="0" * 64), "was altered"),
        (lambda m: m["files"][0].update(bytes=3), "bytes, the manifest says 3"),
        (lambda m: m["files"][0].update(name="../model.onnx"), "outside the bundle"),
        (lambda m: m.update(files=[]), "lists no model.onnx"),
        (lambda m: m["profile"]["batch"].update(min=0), "must rise from at least 1"),
    ],
)
def test_a_manifest_that_lies_is_refused(bundle, tmp_path, change, message):
    with pytest.raises(BundleError, match=message):
        Bundle.open(damaged(bundle, tmp_path, change))


def test_a_missing_or_altered_file_is_refused(bundle, tmp_path):
    copy = damaged(bundle, tmp_path, lambda _: None)
    Bundle.open(copy)
    data = bytearray((copy / MODEL).read_bytes())
    data[len(data) // 2] ^= 1
    (copy / MODEL).write_bytes(data)
    with pytest.raises(BundleError, match="was altered"):
        Bundle.open(copy)
    (copy / MODEL).unlink()
    with pytest.raises(BundleError, match=r"model\.onnx is missing"):
        Bundle.open(copy)
    (copy / MANIFEST).write_text("{")
    with pytest.raises(BundleError, match="not readable JSON"):
        Bundle.open(copy)
    (copy / MANIFEST).unlink()
    with pytest.raises(MissingFile, match=r"it has no manifest\.json"):
        Bundle.open(copy)


def test_sizes_follow_the_options_or_the_preprocessing():
    rules = Preprocess(min_size=800, max_size=1333)
    assert str(Options().profile(rules)) == "[1, 1..1344, 1..1344, 3]"
    assert str(Options(size=(512, 1024)).profile(rules)) == "[1, 512, 1024, 3]"
    ranged = Options(min_size=(256, 300), max_size=(512, 600), batch=Range(min=1, max=8))
    assert str(ranged.profile(rules)) == "[1..8, 256..512, 300..600, 3]"
    stretched = Preprocess(resize="stretch", size=(384, 384))
    assert str(Options().profile(stretched)) == "[1, 384, 384, 3]"
    with pytest.raises(UsageError, match="either fixed"):
        Options(size=(1, 1), max_size=(2, 2))
    with pytest.raises(UsageError, match="must rise"):
        Options(min_size=(9, 9), max_size=(8, 8)).profile(rules)
