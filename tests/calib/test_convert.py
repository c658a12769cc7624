"""Bundles in half precision: what overflows is found first, and stays float32."""

import json

import numpy as np
import pytest

from m2f.bundle import Bundle
from m2f.calib.convert import convert
from m2f.errors import ExportError, UsageError
from m2f.evaluate.check import check
from m2f.export.exporter import Options, export
from m2f.export.overflow import limit_of, wide_nodes
from m2f.runtime.session import load
from tests.export.models import small
from tests.export.test_half import network


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    """A small float32 bundle."""
    place = tmp_path_factory.mktemp("convert") / "float.m2f"
    return export(small("basic_blocks"), place, options=Options(size=(64, 96), check=False))


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_a_converted_bundle_passes_the_check_of_its_precision(bundle, precision, tmp_path):
    conversion = convert(bundle, tmp_path / "half.m2f", precision=precision)
    manifest = conversion.bundle.manifest
    assert (manifest.precision, manifest.wide) == (precision, ())
    assert manifest.source == bundle.manifest.source
    report = check(bundle.path, conversion.bundle.path, layers=True)
    assert report.passed
    assert len(report.images[0].layers) > 30
    assert report.images[0].mask_error == pytest.approx(manifest.parity.mask_error, rel=0.01)
    sizes = [sum(f.bytes for f in b.manifest.files) for b in (bundle, conversion.bundle)]
    assert sizes[1] < 0.6 * sizes[0]


def test_a_float16_bundle_segments_images(bundle, tmp_path):
    convert(bundle, tmp_path / "half.m2f", precision="fp16", check=False)
    image = np.random.default_rng(0).integers(0, 255, (64, 96, 3), dtype=np.uint8)
    with load(tmp_path / "half.m2f") as session:
        assert session(image).size == (64, 96)


def test_bfloat16_is_refused_where_there_are_no_kernels(bundle, tmp_path):
    convert(bundle, tmp_path / "half.m2f", precision="bf16", check=False)
    with pytest.raises(
        UsageError, match="is in bf16, for which ONNX Runtime has no CPU kernels"
    ):
        load(tmp_path / "half.m2f")


def test_layers_that_half_cannot_hold_stay_float32_and_are_named(tmp_path):
    """A hidden layer blown up by a power of two, and down again behind."""
    checkpoint = small("basic_blocks")
    weights = dict(checkpoint.weights)
    large, name = 2.0**14, "pixel_decoder.layers.0.linear"
    weights |= {
        f"{name}1.{part}": weights[f"{name}1.{part}"] * large for part in ("weight", "bias")
    }
    weights[f"{name}2.weight"] = weights[f"{name}2.weight"] / large
    checkpoint = type(checkpoint)(**{**vars_of(checkpoint), "weights": weights})
    source = export(checkpoint, tmp_path / "a.m2f", options=Options(size=(64, 96), check=False))
    conversion = convert(source, tmp_path / "b.m2f", precision="fp16")
    wide = conversion.bundle.manifest.wide
    assert f"{name}1" in wide
    assert all(node.startswith("pixel_decoder.layers.0.") for node in wide)
    over = [reach for reach in conversion.reaches if reach.share > 1]
    assert {reach.layer for reach in over} <= set(wide)
    assert min(reach.largest for reach in over) > limit_of("fp16")
    assert convert(source, tmp_path / "c.m2f", precision="bf16").bundle.manifest.wide == ()


def vars_of(checkpoint):
    return {name: getattr(checkpoint, name) for name in checkpoint.__dataclass_fields__}


def test_what_only_moves_large_numbers_is_wide_too():
    model, _ = network(small("basic_blocks"), "plugin")
    wide = wide_nodes(model, {"pixel_decoder.layers.0.linear1": 1e5}, "fp16")
    assert (
        wide
        == tuple(f"pixel_decoder.layers.0.{name}" for name in ("linear1", "Relu.0", "MatMul.1"))
        or len(wide) > 3
    )
    assert {f"pixel_decoder.layers.0.{name}" for name in ("linear1", "Relu.0")} <= set(wide)
    assert "pixel_decoder.layers.0.MatMul.1" in wide


def test_only_float32_is_converted(bundle, tmp_path):
    half = convert(bundle, tmp_path / "half.m2f", precision="fp16", check=False).bundle
    with pytest.raises(UsageError, match="is in fp16 already"):
        convert(half, tmp_path / "again.m2f", precision="bf16")
    with pytest.raises(UsageError, match="exists; pass --overwrite"):
        convert(bundle, half.path, precision="fp16")
    with pytest.raises(UsageError, match="is the bundle to convert"):
        convert(bundle, bundle.path, precision="fp16", overwrite=True)


def test_nothing_is_left_of_what_failed(tmp_path):
    """A weight that half cannot hold, behind a hidden unit that is never active."""
    checkpoint, name = small("basic_blocks"), "pixel_decoder.layers.0.linear"
    weights = {key: array.copy() for key, array in checkpoint.weights.items()}
    weights[f"{name}1.bias"][0] = -1e3
    weights[f"{name}2.weight"][:, 0] = 7e4
    checkpoint = type(checkpoint)(**{**vars_of(checkpoint), "weights": weights})
    source = export(checkpoint, tmp_path / "a.m2f", options=Options(size=(64, 96), check=False))
    with pytest.raises(ExportError, match=f"{name}2.weight has 64 values"):
        convert(source, tmp_path / "b.m2f", precision="fp16")
    assert [path.name for path in tmp_path.iterdir()] == ["a.m2f"]


def test_manifests_from_before_precision_still_open(bundle, tmp_path):
    import shutil

    old = shutil.copytree(bundle.path, tmp_path / "old.m2f")
    raw = json.loads((old / "manifest.json").read_text())
    for field in ("wide", "quantization"):
        del raw[field]
    (old / "manifest.json").write_text(json.dumps(raw))
    assert Bundle.open(old).manifest.precision == "fp32"
