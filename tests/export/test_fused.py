"""The network for our CPU kernels is still PyTorch's, and nothing is fused that must not be."""

import collections
import warnings

import numpy as np
import onnx
import pytest
from onnx import helper

from m2f.bundle import CPU_MODEL, MODEL, WEIGHTS, Range
from m2f.export.fused import DOMAIN, fuse
from m2f.export.graph import Graph
from m2f.export.layers import gelu, group_norm, linear
from m2f.export.network import onnx_from_weights
from m2f.export.onnx_file import load, save
from m2f.export.parity import OnnxSide, compare
from m2f.export.plan import Plan
from m2f.export.precision import apply
from m2f.export.quantizable import layers
from m2f.plugins import FUSED, library
from m2f.runtime.backend_ort import OrtBackend
from tests import tolerance
from tests.export.models import SMALL, small
from tests.export.test_network import DYNAMIC, Options, image, reference

needs_library = pytest.mark.skipif(library.find() is None, reason="no native library")
RNG = np.random.default_rng(0)


def written(checkpoint, folder, options):
    """Writes a checkpoint's network twice; returns both graphs."""
    preprocess = checkpoint.metadata.preprocess
    profile = options.profile(preprocess)
    model, arrays = onnx_from_weights(
        checkpoint.config,
        checkpoint.weights,
        preprocess=preprocess,
        profile=profile,
        form=options.form,
        algebra=options.algebra,
    )
    fused = fuse(model, arrays)
    save(model, arrays, folder, fused=fused)
    return model.graph, fused[0].graph


def kinds(graph):
    return collections.Counter(node.op_type for node in graph.node)


@needs_library
@pytest.mark.parametrize("name", SMALL)
def test_the_fused_network_is_still_pytorchs(name, tmp_path):
    checkpoint = small(name)
    written(checkpoint, tmp_path, DYNAMIC)
    count = checkpoint.config.transformer_decoder.layers
    side = OnnxSide(tmp_path / CPU_MODEL, count, library=library.find())
    for size, batch in (((32, 32), 1), ((100, 67), 3), ((1, 300), 2), ((160, 96), 1)):
        found = compare(reference(checkpoint), side, *image(*size, batch=batch))
        assert found.is_within(), (size, found)


@pytest.mark.parametrize("options", [DYNAMIC, Options(size=(96, 128))], ids=["any", "fixed"])
@pytest.mark.parametrize("name", SMALL)
def test_everything_that_can_be_is_fused(name, options, tmp_path):
    checkpoint = small(name)
    before, after = (kinds(g) for g in written(checkpoint, tmp_path, options))
    blocks = sum(getattr(checkpoint.config.backbone, "depths", ()))
    assert after["WindowAttention"] == blocks
    assert after["LayerNorm"] == before["LayerNormalization"] > 0
    assert after["GroupNorm"] == before["InstanceNormalization"] > 0
    assert after["Linear"] == sum(is_layer(checkpoint, node) for node in graph_of(tmp_path))
    enlarged = checkpoint.config.pixel_decoder.kind == "msdeform"
    assert before["Resize"] - after["Resize"] == enlarged
    for gone in ("LayerNormalization", "InstanceNormalization", "Erf"):
        assert not after[gone], gone
    known = {spec.name for spec in FUSED}
    fused = [n for n in graph_of(tmp_path, CPU_MODEL) if n.domain == DOMAIN]
    assert {node.op_type for node in fused} <= known
    residuals = sum(node.op_type == "Linear" and len(node.input) == 4 for node in fused)
    assert residuals >= 2 * blocks + 2 * checkpoint.config.transformer_decoder.layers


@needs_library
@pytest.mark.parametrize("name", ["basic_blocks", "odd_windows"])
def test_an_8_bit_network_rounds_as_before(name, tmp_path):
    """Only the order of sums differs, which tips a rounding here and there.

    From such a number more differ after each layer, at most by what roundings cost in all.
    """
    checkpoint = small(name)
    written(checkpoint, tmp_path, DYNAMIC)
    model, arrays = load(tmp_path / MODEL)
    found = layers(model, arrays, "int8")
    scales = {tensor: 4.0 / 127 for layer in found for tensor in layer.tensors}
    names = frozenset(layer.name for layer in found)
    plan = Plan(layers=names, scales=scales, target="onnxruntime")
    model, arrays = apply(model, arrays, plan)
    folder = tmp_path / "int8"
    folder.mkdir()
    save(model, arrays, folder, fused=fuse(model, arrays))
    count = checkpoint.config.transformer_decoder.layers
    exact, plain, fused = (
        OnnxSide(path, count, library=library.find())
        for path in (tmp_path / MODEL, folder / MODEL, folder / CPU_MODEL)
    )
    for size, batch in (((100, 67), 2), ((160, 96), 1)):
        one = compare(plain, fused, *image(*size, batch=batch), trace_layers=True)
        early = list(one.layers.values())[:4]
        assert max(early) <= tolerance.TIPPED_ROUNDINGS, one.layers
        noise = compare(exact, plain, *image(*size, batch=batch))
        assert one.class_error <= noise.class_error
        assert one.mask_error <= noise.mask_error
    after = kinds(onnx.load(folder / CPU_MODEL, load_external_data=False).graph)
    assert after["WindowAttention"] == sum(getattr(checkpoint.config.backbone, "depths", ()))
    stored = {node.output[0] for node in model.graph.node if node.op_type == "DequantizeLinear"}
    quantised = [
        node.output[0]
        for node in model.graph.node
        if node.op_type == "MatMul" and stored.issuperset(node.input)
    ]
    with_bias = [name for name in quantised if not name.endswith("reduction")]
    products = [node for node in graph_of(folder, CPU_MODEL) if is_integer(node)]
    assert len(products) == len(with_bias) > 0
    assert all(len(node.input) == 7 for node in products)
    assert not after["Erf"]
    made = {n.output[0]: n.op_type for n in graph_of(folder, CPU_MODEL)}
    assert all(made[node.input[0]] == "Quantize" for node in products)


def is_integer(node):
    return node.op_type == "MatMulIntegerToFloat"


def graph_of(folder, name=MODEL):
    return onnx.load(folder / name, load_external_data=False).graph.node


def is_layer(checkpoint, node):
    """Whether a node multiplies with a matrix of weights."""
    return node.op_type == "MatMul" and node.input[1].endswith("weight")


def test_both_files_share_their_weights(tmp_path):
    written(small("odd_windows"), tmp_path, DYNAMIC)
    assert {path.name for path in tmp_path.iterdir()} == {MODEL, CPU_MODEL, WEIGHTS}
    places = []
    for name in (MODEL, CPU_MODEL):
        tensors = onnx.load(tmp_path / name, load_external_data=False).graph.initializer
        large = [t for t in tensors if t.data_location == onnx.TensorProto.EXTERNAL]
        places.append({t.name: {e.key: e.value for e in t.external_data} for t in large})
    shared = places[0].keys() & places[1].keys()
    assert len(shared) > 0.9 * len(places[0])
    assert all(places[0][name] == places[1][name] for name in shared)
    new = sum(int(places[1][name]["length"]) for name in places[1].keys() - shared)
    assert new < 0.01 * (tmp_path / WEIGHTS).stat().st_size


def graph_with(build, *, outputs=1, rank=3):
    """A small model: ``build(graph, "x")`` gives its outputs."""
    names = ("a.weight", "b.weight")
    weights = {n: RNG.standard_normal((8, 8), np.float32) for n in names}
    weights |= {n.replace("weight", "bias"): np.ones(8, np.float32) for n in names}
    g = Graph(weights)
    made = build(g, "x")
    ports = [helper.make_tensor_value_info(n, 1, [None] * rank) for n in ("x", *made)]
    graph = helper.make_graph(g.nodes, "test", ports[:1], ports[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    return fuse(model, g.initializers)


def only(found):
    """The one fused node there is."""
    (node,) = (n for n in found[0].graph.node if n.domain == DOMAIN)
    return node, {a.name: helper.get_attribute_value(a) for a in node.attribute}


@pytest.mark.parametrize(
    ("after", "activation"),
    [(lambda g, y: g.op("Relu", y), 1), (gelu, 2)],
    ids=["ReLU", "GELU"],
)
def test_an_activation_joins_its_linear_layer(after, activation):
    found = graph_with(lambda g, x: [after(g, linear(g, "a", x))])
    node, attributes = only(found)
    assert attributes == {"activation": activation}
    assert len(found[0].graph.node) == 1
    assert len(node.input) == 3


def test_a_residual_joins_the_layer_before_it():
    found = graph_with(lambda g, x: [g.op("Add", x, linear(g, "a", g.op("Abs", x)))])
    assert list(only(found)[0].input[3:]) == ["x"]


def test_what_may_be_broadcast_does_not():
    """A position is added to a layer's result, and has no batch."""

    def build(g, x):
        place = g.op("Unsqueeze", g.op("Shape", x), g.constant([0, 1], np.int64))
        return [g.op("Add", linear(g, "a", x), g.op("Cast", place, to=1))]

    assert len(only(graph_with(build))[0].input) == 3


def test_what_others_read_stays():
    """An activation's input that is an output too; a product that is read twice."""

    def visible(g, x):
        y = linear(g, "a", x)
        return [y, g.op("Relu", y)]

    assert graph_with(visible) is None

    def twice(g, x):
        y = linear(g, "a", x)
        return [g.op("Relu", y), g.op("Abs", y)]

    assert only(graph_with(twice))[1] == {"activation": 0}


def test_nearly_a_gelu_is_none():
    def build(g, x):
        y = linear(g, "a", x)
        erf = g.op("Erf", g.op("Div", y, g.constant(1.5)))
        y = g.op("Mul", y, g.op("Add", erf, g.constant(1.0)))
        return [g.op("Mul", y, g.constant(0.5))]

    assert only(graph_with(build))[1] == {"activation": 0}


def integer_layer(g, x, *, readers=(), scale=0.1):
    """A linear layer in 8 bits as `m2f.export.qdq` writes it; others may read its numbers."""
    constants = {
        "x.scale": np.array(scale, np.float32),
        "x.zero": np.array(128, np.uint8),
        "w": np.ones((8, 8), np.int8),
        "w.scale": np.ones(8, np.float32),
        "w.zero": np.zeros(8, np.int8),
    }
    g.initializers.update(constants)
    q = g.op("QuantizeLinear", x, "x.scale", "x.zero")
    a = g.op("DequantizeLinear", q, "x.scale", "x.zero")
    b = g.op("DequantizeLinear", "w", "w.scale", "w.zero", axis=1)
    y = g.op("Add", g.op("MatMul", a, b), g.weight("a.bias"))
    return [y, *(g.op(kind, q) for kind in readers)]


@pytest.mark.parametrize(
    ("before", "activation"),
    [(lambda g, x: x, 0), (lambda g, x: g.op("Relu", x), 1), (gelu, 2)],
    ids=["nothing", "ReLU", "GELU"],
)
def test_an_activation_joins_the_numbers_made_of_it(before, activation):
    found = graph_with(lambda g, x: integer_layer(g, before(g, x)))
    node, attributes = only(found)
    assert (node.op_type, attributes) == ("Quantize", {"activation": activation})
    assert list(node.input) == ["x", "x.scale", "x.zero"]
    assert [n.op_type for n in found[0].graph.node] == ["Quantize", "MatMulIntegerToFloat"]


def test_an_activation_that_others_read_does_not():
    def build(g, x):
        y = gelu(g, x)
        return [*integer_layer(g, y), g.op("Abs", y)]

    assert only(graph_with(build))[1] == {"activation": 0}


def test_numbers_that_others_read_are_made_as_before():
    """And those by a scale for each channel, which the op does not have."""
    assert graph_with(lambda g, x: integer_layer(g, x, readers=["Identity"])) is None
    assert graph_with(lambda g, x: integer_layer(g, x, scale=np.ones(8))) is None


def test_a_norm_of_its_own_statistics_stays():
    """Scales of the normalisation itself, which no group norm of ours has."""

    def build(g, x):
        y = group_norm(g, "n", x, 8, (4, 4))
        for node in g.nodes:
            if node.op_type == "InstanceNormalization":
                node.input[1] = g.constant(np.full(32, 2.0))
        return [y]

    weights = {"n.weight": np.ones(8, np.float32), "n.bias": np.ones(8, np.float32)}
    g = Graph(weights)
    y = build(g, "x")
    ports = [helper.make_tensor_value_info(n, 1, [None] * 4) for n in ("x", *y)]
    graph = helper.make_graph(g.nodes, "test", ports[:1], ports[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    assert fuse(model, g.initializers) is None


@pytest.fixture
def bundle(tmp_path):
    written(small("basic_blocks"), tmp_path, Options(size=(64, 96), batch=Range(min=1, max=1)))
    return tmp_path


@needs_library
def test_the_runtime_prefers_it(bundle):
    pixels, valid = image(64, 96)
    paths = (bundle / MODEL, bundle / CPU_MODEL)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with OrtBackend(paths[0], fused=paths[1]) as fused, OrtBackend(paths[0]) as other:
            assert (fused.path, other.path) == (paths[1], paths[0])
            a, b = (backend.run(pixels, valid)[1] for backend in (fused, other))
    assert (a != b).any(), "the same bits: the same file ran"
    assert np.linalg.norm(a - b) <= tolerance.MODULE_ERROR * np.linalg.norm(b)


def test_without_our_kernels_the_standard_file_runs(bundle, monkeypatch):
    with OrtBackend(bundle / MODEL, fused=bundle / CPU_MODEL, native=False) as backend:
        assert backend.path == bundle / MODEL
    monkeypatch.setenv(library.VARIABLE, "off")
    with (
        pytest.warns(UserWarning, match="without its native library"),
        OrtBackend(bundle / MODEL, fused=bundle / CPU_MODEL) as backend,
    ):
        assert backend.path == bundle / MODEL


@needs_library
def test_kernels_that_lack_an_op_are_named(bundle):
    """A file of another version of m2f: one warning, and the standard file."""
    path = bundle / CPU_MODEL
    model = onnx.load(path, load_external_data=False)
    next(n for n in model.graph.node if n.domain == DOMAIN).op_type = "FromTheFuture"
    path.write_bytes(model.SerializeToString())
    pixels, valid = image(64, 96)
    with (
        pytest.warns(UserWarning, match=r"model\.cpu\.onnx: cannot be loaded: .*FromTheFuture"),
        OrtBackend(bundle / MODEL, fused=path) as backend,
    ):
        assert np.isfinite(backend.run(pixels, valid)[1]).all()
