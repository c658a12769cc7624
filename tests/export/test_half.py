"""Half precision: what is half, what is not, and how far the answer moves."""

import functools

import numpy as np
import onnx
import pytest

from m2f.bundle import MODEL, Range
from m2f.errors import ExportError
from m2f.export.bounds import BOUNDS
from m2f.export.exporter import Options
from m2f.export.network import onnx_from_weights
from m2f.export.onnx_file import load, save
from m2f.export.parity import OnnxSide, compare
from m2f.export.plan import Plan
from m2f.export.precision import apply
from tests.export.half import halved
from tests.export.models import published, small
from tests.export.test_network import image
from tests.export.typing import inferred, named

HALVES = {"fp16": "float16", "bf16": "bfloat16"}
PRODUCTS = {"Conv", "MatMul"}
STATISTICS = {"InstanceNormalization", "Softmax", "Floor", "Sin", "Cos"}


def network(checkpoint, form, size=(64, 96)):
    """A float32 network and its weights."""
    options = Options(form=form, size=size, batch=Range(min=1, max=1))
    preprocess = checkpoint.metadata.preprocess
    return onnx_from_weights(
        checkpoint.config,
        checkpoint.weights,
        preprocess=preprocess,
        profile=options.profile(preprocess),
        form=form,
    )


def written(model, arrays, folder):
    folder.mkdir(exist_ok=True)
    save(model, arrays, folder)
    return folder / MODEL


def side(checkpoint, path):
    return OnnxSide(path, checkpoint.config.transformer_decoder.layers)


@pytest.fixture(scope="module", params=["basic_blocks", "odd_windows"])
def checkpoint(request):
    return small(request.param)


@pytest.fixture(scope="module", params=["portable", "plugin"])
def form(request):
    return request.param


@pytest.fixture(scope="module", params=HALVES)
def typed(request, checkpoint, form, tmp_path_factory):
    """Graph and types of a half file, and what "half" is there."""
    base = request.param
    path = written(
        *apply(*network(checkpoint, form), Plan(base=base)),
        tmp_path_factory.mktemp(f"{base}-{form}"),
    )
    graph, types = inferred(path)
    return graph, {name: named(kind) for name, kind in types.items()}, HALVES[base]


def test_products_are_half_and_statistics_are_not(typed):
    graph, types, half = typed
    seen = set()
    for node in graph.node:
        if node.op_type in PRODUCTS:
            assert [types[name] for name in node.input] == [half] * len(node.input), node.name
        if node.op_type in STATISTICS:
            assert {types[name] for name in node.input} == {"float32"}, node.name
        seen.add(node.op_type)
    assert seen >= {"Conv", "MatMul", "InstanceNormalization", "Softmax", "Floor"}


def test_layer_norm_stays_one_op_with_float32_statistics(typed):
    graph, types, half = typed
    norms = [node for node in graph.node if node.op_type == "LayerNormalization"]
    assert norms
    for node in norms:
        assert types[node.output[0]] == half
        stash = {a.name: a.i for a in node.attribute}.get("stash_type", 1)
        assert stash == onnx.TensorProto.FLOAT
    assert not {"ReduceMean", "Sqrt", "Pow"} & {node.op_type for node in graph.node}


def test_decisions_and_outputs_are_float32(typed):
    graph, types, half = typed
    decisions = [name for name in types if name.endswith(".attention_logits")]
    assert len(decisions) == 4
    for name in (*decisions, "class_logits", "mask_logits"):
        assert types[name] == "float32", name
    assert types["image"] == "uint8"
    first = next(node for node in graph.node if node.op_type == "Conv")
    normalised = {n.output[0]: n for n in graph.node}[first.input[0]]
    assert normalised.op_type == "Cast"
    assert types[normalised.input[0]] == "float32"
    assert half == types[first.input[0]]


def test_sampling_locations_are_float32_from_offset_to_share(typed):
    """From the product that makes offsets to the cast that ends the coordinates."""
    graph, types, _ = typed
    made_by = {name: node for node in graph.node for name in node.output}
    waiting = [node for node in graph.node if node.op_type == "Floor"]
    met = set()
    while waiting:
        node = waiting.pop()
        for name in node.input:
            source = made_by.get(name)
            if source is None or name in met or source.op_type in ("Cast", *PRODUCTS):
                continue
            met.add(name)
            assert types[name] in ("float32", "int64"), name
            waiting.append(source)
    assert {made_by[name].op_type for name in met} >= {"Add", "Sub", "Gather", "Split"}


def test_weights_are_stored_once_in_their_type(typed):
    graph, types, half = typed
    large = [t for t in graph.initializer if np.prod(t.dims) > 1000]
    assert {types[t.name] for t in large if t.name.endswith(".weight")} == {half}
    assert not [t.name for t in large if ".weight.as_" in t.name]


@functools.cache
def errors(name, base, size=(128, 160), naive=False):
    """Distance of a half network from its float32 form, given the same decisions."""
    import tempfile
    from pathlib import Path

    checkpoint = published(name) if name.startswith("coco") else small(name)
    model, arrays = network(checkpoint, "portable", size)
    with tempfile.TemporaryDirectory() as folder:
        exact = side(checkpoint, written(model, arrays, Path(folder) / "a"))
        path = written(*apply(model, arrays, Plan(base=base)), Path(folder) / "b")
        if naive:
            onnx.save(halved(onnx.load(exact.path)), path)
        return compare(exact, side(checkpoint, path), *image(*size))


@pytest.mark.parametrize("base", HALVES)
@pytest.mark.parametrize("name", ["basic_blocks", "odd_windows"])
def test_only_rounding_separates_half_from_float(name, base):
    found = errors(name, base)
    assert found.is_within(BOUNDS[base]), found
    assert found.mask_error > BOUNDS["fp32"].error, "nothing was rounded"


@pytest.mark.parametrize("name", ["basic_blocks", "odd_windows"])
def test_halving_everything_is_worse(name):
    """What `.half()` does: statistics, coordinates and decisions too; a wide image shows it."""
    typed, naive = (errors(name, "fp16", (32, 2048), n) for n in (False, True))
    assert naive.mask_error > 1.5 * typed.mask_error


@pytest.mark.slow
@pytest.mark.parametrize("name", ["coco-panoptic-r50", "coco-panoptic-swin-t"])
def test_published_networks_survive_half(name):
    assert errors(name, "fp16").is_within(BOUNDS["fp16"])


@pytest.mark.parametrize("form", ["portable", "plugin"])
def test_onnxruntime_runs_float16_as_it_is(form, tmp_path):
    """The file itself, not what it means: whatever kernels there are."""
    import onnxruntime

    model = apply(*network(small("odd_windows"), form), Plan(base="fp16"))
    session = onnxruntime.InferenceSession(str(written(*model, tmp_path)))
    emulated = side(small("odd_windows"), tmp_path / MODEL)
    pixels, valid = image(64, 96)
    expected = emulated.run(pixels, valid)
    actual = session.run(None, {"image": pixels, "image_size": valid})[1]
    error = np.linalg.norm(actual - expected.mask_logits)
    assert error <= 2 * BOUNDS["fp16"].error * np.linalg.norm(expected.mask_logits)


def test_a_weight_that_half_cannot_hold_is_named():
    model, arrays = network(small("basic_blocks"), "plugin")
    weight = arrays["pixel_decoder.layers.0.linear1.weight"]
    weight[3, 5] = -7e4
    with pytest.raises(
        ExportError, match=r"pixel_decoder\.layers\.0\.linear1\.weight has 1 .*7e\+04"
    ):
        apply(model, arrays, Plan(base="fp16"))
    apply(model, arrays, Plan(base="bf16"))


def test_named_nodes_stay_float32(tmp_path):
    model, arrays = network(small("basic_blocks"), "plugin")
    wide = {"pixel_decoder.layers.0.MatMul.0", "pixel_decoder.layers.0.linear1"}
    path = written(*apply(model, arrays, Plan(base="fp16", wide=frozenset(wide))), tmp_path)
    graph, types = inferred(path)
    for node in graph.node:
        if node.name in wide:
            assert {named(types[name]) for name in (*node.input, *node.output)} == {"float32"}
    after = next(n for n in graph.node if "pixel_decoder.layers.0.Relu.0" in n.output)
    assert named(types[after.output[0]]) == "float16"


def test_a_file_read_back_is_what_was_written(tmp_path):
    model, arrays = network(small("basic_blocks"), "plugin")
    for external in (False, True):
        folder = tmp_path / str(external)
        folder.mkdir()
        save(model, arrays, folder, external_data=external)
        again, known = load(folder / MODEL)
        assert again == model
        assert known.keys() == arrays.keys()
        assert all(np.array_equal(known[name], arrays[name]) for name in arrays)
