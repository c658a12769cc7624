"""Quantised graphs: the numbers against NumPy's, and the places where runtimes fuse."""

import collections

import ml_dtypes
import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper

from m2f.errors import ExportError
from m2f.export.bounds import BOUNDS
from m2f.export.graph import IR_VERSION, OPSET, Graph
from m2f.export.layers import conv, linear
from m2f.export.parity import compare
from m2f.export.plan import LARGEST, Plan
from m2f.export.precision import apply
from m2f.export.quantizable import layers
from tests.export.models import small
from tests.export.test_half import network, side, written
from tests.export.test_network import image
from tests.export.typing import inferred, named

RNG = np.random.default_rng(7)
CHANNELS = 4
WEIGHTS = {
    "backbone.stem.weight": RNG.normal(size=(CHANNELS, 3, 1, 1)),
    "backbone.stem.bias": RNG.normal(size=CHANNELS),
    "backbone.a.weight": RNG.normal(size=(CHANNELS, CHANNELS, 1, 1)),
    "backbone.a.bias": RNG.normal(size=CHANNELS),
    "pixel_decoder.linear1.weight": RNG.normal(size=(6, CHANNELS)),
    "pixel_decoder.linear1.bias": RNG.normal(size=6),
    "pixel_decoder.linear2.weight": RNG.normal(size=(5, 6)),
    "pixel_decoder.linear2.bias": RNG.normal(size=5),
}
WEIGHTS = {name: array.astype(np.float32) for name, array in WEIGHTS.items()}
INPUT = RNG.normal(size=(1, 3, 5, 7)).astype(np.float32)


def tiny():
    """A residual block and a feed-forward network, and its float64 activations."""
    g = Graph(WEIGHTS)
    with g.scope("backbone"):
        x = g.op("Relu", conv(g, "stem", "x"), name="x")
        x = g.op("Relu", g.op("Add", conv(g, "a", x), x), name="y")
    with g.scope("pixel_decoder"):
        tokens = g.op("Transpose", g.op("Reshape", x, g.ints(0, CHANNELS, -1)), perm=[0, 2, 1])
        g.op("Relu", linear(g, "linear1", tokens), name="hidden")
        linear(g, "linear2", "pixel_decoder.hidden")
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        g.nodes,
        "tiny",
        [info("x", onnx.TensorProto.FLOAT, INPUT.shape)],
        [info("pixel_decoder.linear2", onnx.TensorProto.FLOAT, [1, 35, 5])],
    )
    opset = helper.make_opsetid("", OPSET)
    return helper.make_model(
        graph, opset_imports=[opset], ir_version=IR_VERSION
    ), g.initializers


def fake_quantised(kind, target, scales):
    """The same network in NumPy, float64, every rounding written out."""

    def rounded(x, step, *, positive=False):
        if kind == "fp8":
            return (
                np.clip(x / step, -448, 448).astype(ml_dtypes.float8_e4m3fn).astype(float)
                * step
            )
        if target == "onnxruntime" and positive:
            step = np.float32(step * (127 / 255))
            return np.clip(np.rint(x / step), 0, 255) * step
        least = -128  # clipping at -128 or -127 is the same for what scales were taken from
        return np.clip(np.rint(x / step), least, 127) * step

    def weight(name):
        w = WEIGHTS[f"{name}.weight"].astype(np.float64)
        w = w.reshape(w.shape[:2])
        step = (np.abs(w).max(1, keepdims=True) / LARGEST[kind]).astype(np.float32)
        return rounded(w, step).T, WEIGHTS[f"{name}.bias"].astype(np.float64)

    def product(x, name):
        w, b = weight(name)
        return x @ w + b

    is_cpu = target == "onnxruntime"
    x = INPUT[0].reshape(3, -1).T.astype(np.float64)
    x = rounded(x, scales["x"])
    x = np.maximum(product(x, "backbone.stem"), 0)
    x = rounded(x, scales["backbone.x"], positive=True)
    y = product(x, "backbone.a")
    if is_cpu:
        y = rounded(y, scales["backbone.a"])
    y = np.maximum(y + x, 0)
    if is_cpu:
        y = rounded(y, scales["backbone.y"], positive=True)
    y = rounded(y, scales["pixel_decoder.Transpose.0"])
    y = np.maximum(product(y, "pixel_decoder.linear1"), 0)
    y = rounded(y, scales["pixel_decoder.hidden"], positive=True)
    return product(y, "pixel_decoder.linear2")


def largest(model, arrays, names):
    """Largest magnitude of tensors."""
    full = onnx.ModelProto()
    full.CopyFrom(model)
    full.graph.initializer.extend(onnx.numpy_helper.from_array(a, n) for n, a in arrays.items())
    full.graph.output.extend(onnx.ValueInfoProto(name=n) for n in names if n != "x")
    session = onnxruntime.InferenceSession(full.SerializeToString())
    wanted = [n for n in names if n != "x"]
    found = dict(zip(wanted, session.run(wanted, {"x": INPUT}), strict=True)) | {"x": INPUT}
    return {name: float(np.abs(array).max()) for name, array in found.items()}


def plan_for(model, arrays, **how):
    found = layers(model, arrays, how.get("kind", "int8"))
    names = dict.fromkeys(t for layer in found for t in layer.tensors)
    peak = LARGEST[how.get("kind", "int8")]
    scales = {n: v / peak for n, v in largest(model, arrays, names).items()}
    return Plan(layers=frozenset(layer.name for layer in found), scales=scales, **how)


@pytest.mark.parametrize(
    ("kind", "target"), [("int8", "tensorrt"), ("int8", "onnxruntime"), ("fp8", "tensorrt")]
)
def test_numbers_are_those_of_fake_quantisation(kind, target, tmp_path):
    model, arrays = tiny()
    plan = plan_for(model, arrays, kind=kind, target=target)
    assert len(plan.layers) == 5
    path = written(*apply(model, arrays, plan), tmp_path)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    (actual,) = onnxruntime.InferenceSession(str(path), options).run(None, {"x": INPUT})
    scales = {name: np.float32(scale) for name, scale in plan.scales.items()}
    expected = fake_quantised(kind, target, scales)
    # Sums of at most 6 float32 products, and a bias in whole steps where ONNX Runtime has it.
    limit = 1e-5 if target == "tensorrt" else 1e-3
    assert np.abs(actual[0] - expected).max() <= limit * np.abs(expected).max()


@pytest.fixture(scope="module")
def example():
    """A small network and steps for all that can be quantised."""
    checkpoint = small("basic_blocks")
    model, arrays = network(checkpoint, "plugin")
    found = layers(model, arrays)
    exact = side(checkpoint, written(model, arrays, _folder("exact")))
    names = list(dict.fromkeys(t for layer in found for t in layer.tensors))
    traced = exact.run(*image(64, 96), layers=names).layers
    peaks = {name: float(np.abs(array).max()) for name, array in traced.items()}
    return checkpoint, model, arrays, found, peaks, exact


def _folder(name):
    import tempfile
    from pathlib import Path

    return Path(tempfile.mkdtemp(prefix=f"m2f-{name}-"))


def planned(example, kind="int8", **how):
    _, model, arrays, _, peaks, _ = example
    found = layers(model, arrays, kind)
    scales = {name: peak / LARGEST[kind] for name, peak in peaks.items()}
    names = frozenset(layer.name for layer in found)
    return Plan(kind=kind, layers=names, scales=scales, **how)


@pytest.mark.parametrize(
    ("base", "kind", "target"),
    [
        ("fp32", "int8", "tensorrt"),
        ("fp16", "int8", "tensorrt"),
        ("fp32", "int8", "onnxruntime"),
        ("fp16", "fp8", "tensorrt"),
    ],
)
def test_a_quantised_network_is_still_the_network(example, base, kind, target, tmp_path):
    """Values of deformable attention included: their body takes 8 bits too."""
    checkpoint, model, arrays, _, _, exact = example
    plan = planned(example, kind, base=base, target=target)
    quantised = side(checkpoint, written(*apply(model, arrays, plan), tmp_path))
    found = compare(exact, quantised, *image(64, 96))
    assert found.is_within(BOUNDS[kind]), found
    assert found.mask_error > BOUNDS["fp16"].error, "nothing was quantised"


def test_pairs_stand_where_tensorrt_fuses(example, tmp_path):
    _, model, arrays, found, _, _ = example
    path = written(*apply(model, arrays, planned(example, base="fp16")), tmp_path)
    graph, types = inferred(path)
    made_by = {name: node for node in graph.node for name in node.output}
    nodes = {node.name: node for node in graph.node}
    zeros = {t.name: onnx.numpy_helper.to_array(t) for t in graph.initializer}
    for layer in found:
        if layer.kind == "MSDeformAttn":
            continue
        node = nodes[layer.node]
        sources = [made_by[name].op_type for name in node.input if name in made_by]
        pairs = sources.count("DequantizeLinear")
        assert pairs == (1 if layer.kind == "Add" else 2), layer.name
        if layer.kind == "Add":
            assert set(sources) == {"DequantizeLinear", "Conv"}, layer.name
        assert {named(types[name]) for name in node.input} == {"float16"}, layer.name
    for node in graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            zero = zeros[node.input[2]]
            assert zero.dtype == np.int8
            assert not zero.any()
        for name in node.input:
            if name.startswith("transformer_decoder.layers."):
                assert not name.endswith(".dequantized")
    assert found[0].kind == "Conv"
    assert zeros[f"{found[0].weight}.scale"].shape == (16,)
    assert zeros[f"{found[0].weight}.quantized"].dtype == np.int8


def test_the_sampled_values_are_whole_numbers(example):
    _, model, arrays, _, peaks, _ = example
    typed, known = apply(model, arrays, planned(example, base="fp16"))
    made_by = {name: node for node in typed.graph.node for name in node.output}
    samplers = [node for node in typed.graph.node if node.op_type == "MSDeformAttn"]
    assert len(samplers) == 2
    for node in samplers:
        quantize = made_by[node.input[0]]
        assert quantize.op_type == "QuantizeLinear"
        scale = next(a.f for a in node.attribute if a.name == "value_scale")
        assert scale == pytest.approx(float(known[quantize.input[1]]))
        # A step of half precision that covers the range: at most one unit larger.
        assert (
            1 <= scale * 127 / peaks[quantize.name.removesuffix(".quantized")] <= 1 + 2.0**-10
        )


def test_onnxruntime_fuses_its_form_whole(example, tmp_path):
    _, model, arrays, found, _, _ = example
    plan = planned(example, target="onnxruntime")
    path = written(*apply(model, arrays, plan), tmp_path)
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    options.log_severity_level = 3
    onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    optimised = onnx.load(tmp_path / "optimised.onnx").graph
    kinds = collections.Counter(node.op_type for node in optimised.node)
    wanted = collections.Counter(layer.kind for layer in found)
    assert kinds["QLinearConv"] == wanted["Conv"]
    assert kinds["QLinearAdd"] == wanted["Add"]
    assert kinds["MatMulIntegerToFloat"] + kinds["QGemm"] == wanted["MatMul"]


def test_a_plan_of_another_network_is_refused(example):
    _, model, arrays, _, _, _ = example
    with pytest.raises(ExportError, match=r"quantises backbone\.elsewhere, which this network"):
        apply(model, arrays, Plan(layers=frozenset({"backbone.elsewhere"})))
    with pytest.raises(ExportError, match=r"step of .* is None, expected a positive number"):
        apply(model, arrays, Plan(layers=frozenset({"backbone.stem.conv1"})))


def test_a_step_is_never_rounded_down():
    from m2f.export.qdq import _storable

    steps = RNG.uniform(1e-7, 3, 1000).astype(np.float32)
    for base, kind in (("fp16", np.float16), ("bf16", ml_dtypes.bfloat16)):
        stored = _storable(steps, Plan(base=base))
        assert (stored >= steps).all()
        assert (stored.astype(kind).astype(np.float32) == stored).all()
        unit = ml_dtypes.finfo(kind).eps
        assert (stored - steps <= 2 * unit * steps + 2.0**-24).all()
    assert (_storable(steps, Plan()) == steps).all()
