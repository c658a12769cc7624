"""The portable file in other people's runtimes: OpenVINO, and TensorRT for RTX's builder."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

from m2f.bundle import MODEL, Range
from m2f.export.exporter import Options
from tests import tolerance
from tests.export import rtx
from tests.export.half import halved
from tests.export.models import published, small
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
    script = Path(rtx.__file__)
    done = subprocess.run(
        [sys.executable, script, path, *capabilities],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])["bytes"], done.stdout + done.stderr


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


@needs_rtx
@pytest.mark.slow
@pytest.mark.parametrize("name", ["coco-panoptic-r50", "coco-panoptic-swin-t"])
def test_turing_takes_the_graph_in_float16(name, tmp_path):
    exported(published(name), tmp_path, Options(form="portable", size=(256, 320)))
    onnx.save(halved(onnx.load(tmp_path / MODEL)), tmp_path / "half.onnx")
    size, said = built(tmp_path / "half.onnx", "SM75")
    assert size > 0, said


@needs_rtx
def test_turing_has_no_float32_products_at_all(tmp_path):
    """Why the float32 test leaves SM75 out: a single MatMul is refused, so it is not us."""
    exported(small("basic_blocks"), tmp_path, Options(form="portable", size=(64, 64)))
    size, said = built(tmp_path / MODEL, "SM75")
    assert size == 0
    assert "FP32 GEMM is not supported" in said
