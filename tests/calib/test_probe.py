"""Statistics that the graph computes, against the activations themselves."""

import numpy as np
import onnx
import pytest

from m2f.calib.images import Feeder
from m2f.calib.probe import SAMPLES, Probe
from m2f.errors import BundleError, CheckFailed
from m2f.export.parity import OnnxSide
from m2f.export.quantizable import layers
from m2f.plugins import library


def tensors_of(model):
    """Channel axes of the inputs of convolutions and products, and of what comes out."""
    arrays = {i.name: onnx.numpy_helper.to_array(i) for i in model.graph.initializer}
    found = {}
    for layer in layers(model, arrays):
        axis = 1 if layer.kind in ("Conv", "Add") else -1
        found |= dict.fromkeys(layer.tensors, axis)
    return found


@pytest.fixture(scope="module")
def model(bundle):
    return onnx.load(str(bundle.model_path))


@pytest.fixture(scope="module")
def fed(bundle, pictures):
    feeder = Feeder(bundle.manifest.metadata.preprocess, bundle.manifest.profile)
    return feeder(sorted(pictures.iterdir())[3])


@pytest.fixture(scope="module")
def seen(bundle, model, fed):
    return Probe(model, bundle.path, tensors_of(model), is_fused=True, threads=1).run(*fed)


def test_it_sees_what_passes_through(bundle, model, fed, seen):
    sampled = tensors_of(model)
    side = OnnxSide(bundle.model_path, 4, threads=1, library=library.find())
    actual = side.run(*fed, layers=list(seen)).layers
    assert len(seen) > 2 * len(sampled) > 40
    for name, one in seen.items():
        array = actual[name]
        axes = None
        if name in sampled:
            axis = sampled[name] % array.ndim
            axes = tuple(i for i in range(array.ndim) if i != axis)
            assert np.array_equal(one.samples, array.ravel())  # all of it: it is small
        assert np.array_equal(one.low, array.min(axes))
        assert np.array_equal(one.high, array.max(axes))
        # A float32 mean of n values of the size of the largest, in any order of summation.
        bound = array.size * 2.0**-24 * float(abs(array).max())
        assert np.allclose(one.mean, array.mean(axes, dtype=np.float64), rtol=0, atol=bound)


def end_of(name, nodes):
    """What comes out of a product, its bias, a residual addition and a ReLU together."""
    readers = [node for node in nodes if name in node.input]
    if [node.op_type for node in readers] in (["Add"], ["Relu"]):
        return end_of(readers[0].output[0], nodes)
    return name


def test_every_growing_result_is_watched(bundle, model, seen):
    products = [n.output[0] for n in model.graph.node if n.op_type in ("Conv", "MatMul")]
    ends = {end_of(name, model.graph.node) for name in products}
    assert len(ends) > 50
    assert ends <= set(seen)
    assert set(products) <= set(Probe(model, bundle.path, {}, threads=1).tensors)
    outputs = {n.output[0] for n in model.graph.node if n.op_type == "LayerNormalization"}
    assert outputs <= set(seen)
    assert not any(name.startswith("constant") for name in seen)


def network(shape):
    """A result y = 2 x of this shape, computed from an image of one pixel."""
    info = onnx.helper.make_tensor_value_info
    node = onnx.helper.make_node
    nodes = [
        node("Cast", ["image"], ["cast"], to=1),
        node("Slice", ["cast", "zero", "one", "three"], ["pixel"]),
        node("Reshape", ["pixel", "single"], ["number"]),
        node("Mul", ["table", "number"], ["y"], name="y"),
        node("Identity", ["y"], ["out"]),
    ]
    table = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    initializers = {
        "table": table,
        "zero": np.array([0]),
        "one": np.array([1]),
        "three": np.array([3]),
        "single": np.array([1]),
        "image_size": np.zeros((1, 2), np.int64),
    }
    graph = onnx.helper.make_graph(
        nodes,
        "test",
        [info("image", 2, [1, 1, 1, 3]), info("image_size", 7, [1, 2])],
        [info("out", 1, shape)],
        [onnx.numpy_helper.from_array(array, name) for name, array in initializers.items()],
    )
    opset = onnx.helper.make_opsetid("", 17)
    return onnx.helper.make_model(graph, opset_imports=[opset], ir_version=8)


IMAGE = np.full((1, 1, 1, 3), 2, np.uint8)
WHOLE = np.ones((1, 2), np.int64)


def test_of_a_large_tensor_every_channel_is_sampled_evenly(tmp_path):
    """Twelve channels: 2 and 3 divide them, as they do those of real networks."""
    shape = (1, 300_000, 12)
    probe = Probe(network(shape), tmp_path, {"y": -1}, threads=1)
    one = probe.run(IMAGE, WHOLE)["y"]
    assert SAMPLES * 6 / 7 <= one.samples.size <= 6 * SAMPLES
    channels = np.bincount((one.samples / 2).astype(int) % 12, minlength=12)
    assert channels.max() - channels.min() <= 1
    assert one.high.shape == (12,)
    assert one.high[-1] == 2 * (3_600_000 - 1)  # exact, sampled or not


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_tensor_that_is_not_finite_is_named(tmp_path, bad):
    model = network((1, 7, 3))
    table = np.ones((1, 7, 3), np.float32)
    table[0, 4, 1] = bad
    model.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(table, "table"))
    for sampled in ({}, {"y": -1}):
        with pytest.raises(CheckFailed, match=r"tensor y holds NaN or infinity"):
            Probe(model, tmp_path, sampled, threads=1).run(IMAGE, WHOLE)


def test_a_tensor_that_is_not_there(bundle, model):
    with pytest.raises(BundleError, match="nowhere"):
        Probe(model, bundle.path, {"nowhere": 1})
