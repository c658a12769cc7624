"""The portable file in other people's runtimes: OpenVINO, and TensorRT for RTX's builder."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from m2f.bundle import MODEL, Range
from m2f.export.exporter import Options
from m2f.export.plan import Plan
from m2f.export.precision import apply
from m2f.export.quantizable import layers
from tests import tolerance
from tests.export import rtx
from tests.export.models import published, small
from tests.export.test_half import network, written
from tests.export.test_network import exported, image

PORTABLE = Options(form="portable", batch=Range(min=1, max=2))
FP32_CAPABILITIES = ("SM80", "SM86", "SM89", "SM120", "SM121")

needs_rtx = pytest.mark.skipif(
    not all(rtx.libraries()) or not rtx.libraries(),
    reason="TensorRT for RTX is not installed (tensorrt-rtx-cu13-bindings, "
    "onnxruntime-ep-nv-tensorrt-rtx-cu13)",
)


def built(path, *capabilities):
    """Engine size in bytes, 0 where the builder refused; and its complaints."""
    return built_with_types(path, *capabilities)[:2]


def built_with_types(path, *capabilities):
    """The same, and the types that the builder was given; see `rtx.py`."""
    script = Path(rtx.__file__)
    done = subprocess.run(
        [sys.executable, script, path, *capabilities],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    return result["bytes"], done.stdout + done.stderr, result["types"]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["coco-panoptic-r50", "coco-panoptic-swin-t"])
def test_openvino_computes_the_same(name, tmp_path):
    openvino = pytest.importorskip("openvino")
    side = exported(published(name), tmp_path, PORTABLE)
    pixels, _ = image(160, 224)
    expected = side.run(pixels, np.array([[160, 224]]))
    # Its own default is bfloat16 on machines that have it.
    options = {"INFERENCE_PRECISION_HINT": "f32"}
    model = openvino.Core().compile_model(tmp_path / MODEL, "CPU", options)
    actual = model({"image": pixels})
    for key in ("class_logits", "mask_logits"):
        error = np.linalg.norm(actual[key] - getattr(expected, key))
        assert error <= tolerance.MODULE_ERROR * np.linalg.norm(getattr(expected, key)), key


@pytest.mark.slow
def test_openvino_loads_swin_l(tmp_path):
    openvino = pytest.importorskip("openvino")
    exported(published("coco-panoptic-swin-l-in21k"), tmp_path, PORTABLE)
    model = openvino.Core().read_model(tmp_path / MODEL)
    assert [tensor.get_any_name() for tensor in model.inputs] == ["image"]


@needs_rtx
@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["coco-panoptic-r50", "coco-panoptic-swin-t", "coco-panoptic-swin-l-in21k"]
)
def test_tensorrt_for_rtx_builds_float32_engines(name, tmp_path):
    exported(published(name), tmp_path, PORTABLE)
    size, said = built(tmp_path / MODEL, *FP32_CAPABILITIES)
    assert size > sum(a.nbytes for a in published(name).weights.values()) / 2, said


EVERY = ("SM75", *FP32_CAPABILITIES)
PRECISIONS = {
    "fp16": ("HALF", "fp16", None, EVERY),
    "bf16": ("BF16", "bf16", None, FP32_CAPABILITIES),
    "int8": ("HALF", "fp16", "int8", EVERY),
    "fp8": ("HALF", "fp16", "fp8", ("SM89", "SM120", "SM121")),
}
"""Type that products are given; base and 8-bit type of the plan; who has them."""


def precise(checkpoint, base, kind, size):
    """The network in a precision, ranges made up: what matters is what the builder takes."""
    model, arrays = network(checkpoint, "portable", size)
    found = layers(model, arrays, kind) if kind else ()
    scales = {name: 0.02 for layer in found for name in layer.tensors}
    names = frozenset(layer.name for layer in found)
    plan = Plan(base=base, kind=kind or "int8", layers=names, scales=scales)
    return apply(model, arrays, plan), len(scales)


@needs_rtx
@pytest.mark.slow
@pytest.mark.parametrize("precision", PRECISIONS)
def test_every_precision_builds_with_its_types(precision, tmp_path):
    half, base, kind, capabilities = PRECISIONS[precision]
    typed, rounded = precise(small("odd_windows"), base, kind, (64, 96))
    size, said, types = built_with_types(written(*typed, tmp_path), *capabilities)
    assert size > 0, said
    assert set(types["CONVOLUTION"]) == set(types["MATRIX_MULTIPLY"]) == {half}
    assert set(types["SOFTMAX"]) == {"FLOAT"}
    norms = types["NORMALIZATION"]  # group norms in float32, layer norms one op each in half
    assert norms.keys() == {"FLOAT", half}
    assert norms["FLOAT"] == 5
    if kind:
        assert set(types["DEQUANTIZE"]) == {kind.upper()}
        assert 0 < sum(types["QUANTIZE"].values()) <= rounded


@needs_rtx
@pytest.mark.slow
@pytest.mark.parametrize("name", ["coco-panoptic-r50", "coco-panoptic-swin-t"])
def test_turing_takes_published_networks_in_float16_and_int8(name, tmp_path):
    for kind in (None, "int8"):
        typed, _ = precise(published(name), "fp16", kind, (256, 320))
        size, said = built(written(*typed, tmp_path / str(kind)), "SM75")
        assert size > 0, said


@needs_rtx
def test_turing_has_no_float32_products_at_all(tmp_path):
    """Why the float32 test leaves SM75 out: a single MatMul is refused, so it is not us."""
    exported(small("basic_blocks"), tmp_path, Options(form="portable", size=(64, 64)))
    size, said = built(tmp_path / MODEL, "SM75")
    assert size == 0
    assert "FP32 GEMM is not supported" in said
