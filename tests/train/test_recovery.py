"""Finetuning around 8 bits: what is rounded, what is learnt, and what the file makes of it."""

import dataclasses
import json

import numpy as np
import pytest

from m2f.bundle import MANIFEST, Bundle, Range
from m2f.calib.calibration import RANGES as CALIBRATION
from m2f.calib.learnt import quantise, read_ranges
from m2f.errors import BundleError, MissingFile, UsageError
from m2f.evaluate import open_data
from m2f.export import Options, export, onnx_file, precision
from m2f.export.parity import OnnxSide, TorchSide, relative_error
from m2f.export.plan import Plan
from m2f.export.quantizable import layers
from m2f.models.checkpoint import read, write_hf
from m2f.models.mask2former import model_from_weights
from m2f.train.finetuning import finetune
from m2f.train.quantized import LARGEST
from m2f.train.recovery import PIXELS, recovery
from m2f.train.start import start_from
from tests.train.easy import METADATA, TINY, fresh, trained
from tests.train.test_finetune import QUICK
from tests.train.test_verbs import interrupt

THRESHOLD = 4.0
OPTIONS = Options(check=False, batch=Range(min=1, max=1))


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A checkpoint, its bundle, and one that says it was quantised: all that is read of it."""
    folder = tmp_path_factory.mktemp("recovery")
    (folder / "tiny").mkdir()
    write_hf(trained().weights, TINY, METADATA, folder / "tiny")
    for name in ("plain.m2f", "int8.m2f"):
        export(folder / "tiny", folder / name, options=OPTIONS)
    found = layers(*onnx_file.load(folder / "plain.m2f/model.onnx"))
    ranges = {
        "quantized": [layer.name for layer in found],
        "thresholds": {t: THRESHOLD for layer in found for t in layer.tensors},
    }
    (folder / "int8.m2f" / CALIBRATION).write_text(json.dumps(ranges))
    manifest = json.loads((folder / "int8.m2f" / MANIFEST).read_text())
    (folder / "int8.m2f" / MANIFEST).write_text(json.dumps({**manifest, "precision": "int8"}))
    return folder


@pytest.fixture(scope="module")
def around(place):
    return recovery(place / "int8.m2f", start_from(place / "tiny"))


def test_what_is_rounded_is_what_the_file_rounds(place, around):
    model, _ = onnx_file.load(place / "plain.m2f/model.onnx")
    readers = {node.input[1]: node.input[0] for node in model.graph.node if len(node.input) > 1}
    for name, tensor in around.rounding.inputs.items():
        assert readers[f"{name}.weight"] == tensor
    assert not set(PIXELS) & set(around.rounding.inputs)
    expected = {"backbone.res2.0.conv2", "backbone.res5.0.shortcut", "pixel_decoder.lateral"}
    expected |= {f"pixel_decoder.layers.0.{n}" for n in ("linear1", "attn.output_proj")}
    assert expected <= set(around.rounding.inputs)
    assert "pixel_decoder.layers.0.attn.value_proj" in around.rounding.outputs
    assert set(around.rounding.steps.values()) == {THRESHOLD / LARGEST}


def test_the_prepared_model_computes_what_the_file_computes(place, around, tmp_path):
    """PyTorch as prepared against ONNX Runtime on real Q/DQ nodes, the same layers in both."""
    rounding = around.rounding
    model, arrays = onnx_file.load(place / "plain.m2f/model.onnx")
    found = {layer.name: layer for layer in layers(model, arrays)}
    names = {n for n in found if n in rounding.inputs or found[n].input in rounding.outputs}
    names -= set(PIXELS)
    tensors = {t for name in names for t in found[name].tensors}
    plan = Plan(layers=frozenset(names), scales=dict.fromkeys(tensors, THRESHOLD / LARGEST))
    onnx_file.save(*precision.apply(model, arrays, plan), tmp_path)
    file = OnnxSide(tmp_path / "model.onnx", TINY.transformer_decoder.layers, threads=1)

    weights = start_from(place / "tiny").weights
    plain, prepared = (model_from_weights(TINY, weights) for _ in range(2))
    around.prepare(prepared)
    image = np.random.default_rng(0).integers(0, 256, (1, 64, 96, 3), np.uint8)
    size = np.array([[64, 96]])
    exact = TorchSide(plain, METADATA.preprocess).run(image, size)
    theirs = file.run(image, size, forced=exact.decisions)
    ours = TorchSide(prepared, METADATA.preprocess).run(image, size, forced=exact.decisions)
    for output in ("class_logits", "mask_logits"):
        quantised = getattr(theirs, output)
        noise = relative_error(getattr(exact, output), quantised)
        # What is left are values within rounding of the middle between two steps: few, and
        # each wrong by a step as every other is by a quarter of one.
        assert relative_error(getattr(ours, output), quantised) < noise / 5, output


def test_learns_weights_and_ranges(place, around, data, tmp_path):
    panoptic = open_data(data, task="panoptic")
    start = start_from(place / "tiny")
    report = finetune(start, panoptic, tmp_path / "out", settings=QUICK, recovery=around)
    ranges = read_ranges(report.ranges)
    thresholds = ranges.thresholds
    assert ranges.quantized == around.quantized
    assert set(thresholds) == set(around.thresholds)
    learnt = {name for name, value in thresholds.items() if value != THRESHOLD}
    assert learnt
    assert learnt <= set(around.rounding.steps)
    assert read(report.out).config == TINY
    assert "training rounds in" in report.notes[-1]
    export(report.out, tmp_path / "out.m2f", options=OPTIONS)
    made = quantise(tmp_path / "out.m2f", report.ranges, tmp_path / "out-int8.m2f")
    assert made.quantized == around.quantized
    model, arrays = onnx_file.load(tmp_path / "out-int8.m2f/model.onnx")
    scales = {
        node.input[0]: float(arrays[node.input[1]])
        for node in model.graph.node
        if node.op_type == "QuantizeLinear" and node.input[0] in learnt
    }
    assert scales
    for name, scale in scales.items():
        assert scale == pytest.approx(thresholds[name] / LARGEST, rel=1e-6)
    about = Bundle.open(tmp_path / "out-int8.m2f").manifest.quantization
    assert about.method == "learnt, from int8.m2f"


def test_goes_on_with_the_ranges_it_had(place, around, data, tmp_path, ctrl_c):
    panoptic = open_data(data, task="panoptic")
    start = start_from(place / "tiny")
    whole = finetune(start, panoptic, tmp_path / "whole", settings=QUICK, recovery=around)

    with pytest.raises(KeyboardInterrupt):
        finetune(
            *(start, panoptic, tmp_path / "out"),
            settings=QUICK,
            recovery=around,
            progress=interrupt(3),
        )
    with pytest.raises(UsageError, match="qat_sha256 was"):
        finetune(start, panoptic, tmp_path / "out", settings=QUICK, resume=True)
    rest = finetune(
        start, panoptic, tmp_path / "out", settings=QUICK, recovery=around, resume=True
    )
    assert read_ranges(rest.ranges) == read_ranges(whole.ranges)


def test_what_cannot_be_recovered(place, around, data, tmp_path):
    start = start_from(place / "tiny")
    with pytest.raises(UsageError, match="is fp32; training makes up for int8"):
        recovery(place / "plain.m2f", start)
    with pytest.raises(UsageError, match="has no weights yet"):
        recovery(place / "int8.m2f", fresh())
    with pytest.raises(UsageError, match="calibrate the model that is to be trained"):
        recovery(place / "int8.m2f", trained())
    settings = dataclasses.replace(QUICK, trains_norm=True)
    panoptic = open_data(data, task="panoptic")
    with pytest.raises(UsageError, match="leave out --train-norm or --qat"):
        finetune(start, panoptic, tmp_path / "out", settings=settings, recovery=around)
    with pytest.raises(MissingFile, match="no such file of ranges"):
        read_ranges(tmp_path / "none.json")
    with pytest.raises(UsageError, match="is int8 already"):
        quantise(place / "int8.m2f", place / "int8.m2f" / CALIBRATION, tmp_path / "x.m2f")
    (tmp_path / "other.json").write_text('{"quantized": ["a"], "thresholds": {"a": 1}}')
    with pytest.raises(UsageError, match="quantises a, which"):
        quantise(place / "plain.m2f", tmp_path / "other.json", tmp_path / "x.m2f")
    assert not (tmp_path / "x.m2f").exists()
    (tmp_path / "odd.json").write_text('{"quantized": 3}')
    with pytest.raises(BundleError, match="holds no ranges"):
        read_ranges(tmp_path / "odd.json")
