"""Quantize's native kernels against ONNX Runtime's QuantizeLinear, on every instruction set."""

import ctypes

import numpy as np
import onnxruntime
import pytest
from onnx import helper
from scipy import special

from m2f.export.graph import IR_VERSION, OPSET
from tests import tolerance
from tests.fused import node
from tests.ops.native import BACKENDS, FAST, MESSAGE_BYTES, PATH, STORAGE, needs_library

pytestmark = needs_library

ACTIVATIONS = {
    "none": lambda x: x,
    "relu": lambda x: np.maximum(x, 0),
    "gelu": lambda x: x * (1 + special.erf(x / np.sqrt(2))) / 2,
}

# Elements: vectors have 4 to 16, four are taken at a time, and a task has 16384.
COUNTS = (1, 3, 17, 63, 64, 65, 300, 16384, 16385, 3 * 16384 + 77)

ZEROS = [np.uint8(0), np.uint8(128), np.uint8(255), np.int8(-128), np.int8(0), np.int8(127)]


def quantize(kernels, x, scale, zero, *, activation="none", threads=1):
    """On tensors that begin at no vector's border; nothing may be written around them."""
    room = np.concatenate([[0], x.ravel()]).astype(np.float32)
    output = np.full(x.size + 2, 77, zero.dtype)
    message = ctypes.create_string_buffer(MESSAGE_BYTES)
    kind = activation if isinstance(activation, int) else list(ACTIVATIONS).index(activation)
    failed = ctypes.CDLL(str(PATH)).m2f_quantize(
        kernels.index,
        STORAGE[zero.dtype.name],
        threads,
        room[1:].ctypes.data_as(ctypes.c_void_p),
        ctypes.c_int64(x.size),
        ctypes.c_float(scale),
        np.array(zero).ctypes.data_as(ctypes.c_void_p),
        ctypes.c_int64(kind),
        output[1:].ctypes.data_as(ctypes.c_void_p),
        message,
        ctypes.c_size_t(MESSAGE_BYTES),
    )
    if failed:
        raise ValueError(message.value.decode())
    assert output[0] == output[-1] == 77
    return output[1:-1].reshape(x.shape)


def standard(x, scale, zero):
    """What ONNX Runtime's own QuantizeLinear gives."""
    kind = helper.np_dtype_to_tensor_dtype(zero.dtype)
    ports = [("x", 1, [None] * x.ndim), ("scale", 1, []), ("zero", kind, [])]
    graph = helper.make_graph(
        [helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["y"])],
        "standard",
        [helper.make_tensor_value_info(*port) for port in ports],
        [helper.make_tensor_value_info("y", kind, [None] * x.ndim)],
    )
    versions = [helper.make_opsetid("", OPSET)]
    model = helper.make_model(graph, opset_imports=versions, ir_version=IR_VERSION)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    fed = {"x": x, "scale": np.array(scale, np.float32), "zero": np.array(zero)}
    return session.run(None, fed)[0]


def draw(seed, shape, scale):
    """Numbers across the whole range and beyond it, a third of them between two steps."""
    rng = np.random.default_rng(seed)
    steps = rng.normal(0, 150, shape)
    halves = np.floor(steps) + 0.5
    x = np.where(rng.random(shape) < 1 / 3, halves, steps) * np.float64(np.float32(scale))
    return x.astype(np.float32)


@pytest.mark.parametrize("kernels", BACKENDS, ids=str)
@pytest.mark.parametrize("zero", ZEROS, ids=lambda zero: f"{zero.dtype}_{zero}")
def test_without_an_activation_it_is_onnxruntimes_own(zero, kernels):
    for seed, count in enumerate(COUNTS):
        for scale in (0.25, 0.0173, 3e-39, 1e30):
            x = draw(seed, count, scale)
            assert (quantize(kernels, x, scale, zero) == standard(x, scale, zero)).all()


@pytest.mark.parametrize("kernels", BACKENDS, ids=str)
@pytest.mark.parametrize("zero", ZEROS[1::3], ids=lambda zero: str(zero.dtype))
def test_quotients_are_true_ones(zero, kernels):
    """Neighbours of ties, which a product with the scale's inverse rounds the other way."""
    scales = np.random.default_rng(0).uniform(0.001, 2, 40).astype(np.float32)
    ties = np.arange(-128.5, 128).astype(np.float32)
    for scale in scales:
        x = ties * scale
        x = np.concatenate(
            [np.nextafter(x, x + side).astype(np.float32) for side in (-1, 0, 1)]
        )
        assert (quantize(kernels, x, scale, zero) == standard(x, scale, zero)).all()


@pytest.mark.parametrize("kernels", BACKENDS, ids=str)
@pytest.mark.parametrize("activation", ["relu", "gelu"])
@pytest.mark.parametrize("zero", ZEROS[1::3], ids=lambda zero: str(zero.dtype))
def test_activations_are_the_definitions(zero, activation, kernels):
    """Within a rounding of a step, and only where the definition is next to a tie."""
    scale = np.float32(0.031)
    for seed, count in enumerate(COUNTS):
        x = draw(seed, count, 0.01)
        y = ACTIVATIONS[activation](x.astype(np.float64))
        steps = y / np.float64(scale)
        low, high = np.iinfo(zero.dtype).min - int(zero), np.iinfo(zero.dtype).max - int(zero)
        bound = tolerance.quantised(x, scale, is_gelu=activation == "gelu")
        found = quantize(kernels, x, scale, zero, activation=activation).astype(int) - int(zero)
        least, most = np.rint(steps - bound), np.rint(steps + bound)
        assert (found >= np.clip(least, low, high)).all()
        assert (found <= np.clip(most, low, high)).all()
        assert np.mean(least != most) < 0.01 or count < 100


@pytest.mark.parametrize("kernels", BACKENDS, ids=str)
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("zero", ZEROS[1::3], ids=lambda zero: str(zero.dtype))
def test_what_is_no_number_stays_alone(zero, activation, kernels):
    """NaN gives the least there is, infinity the ends of the range."""
    x = draw(1, 300, 0.1)
    clean = quantize(kernels, x, 0.1, zero, activation=activation)
    x[[0, 130, 299]] = np.nan, np.inf, np.nan
    spoilt = quantize(kernels, x, 0.1, zero, activation=activation)
    range_ = np.iinfo(zero.dtype)
    assert spoilt[[0, 130, 299]].tolist() == [range_.min, range_.max, range_.min]
    spoilt[[0, 130, 299]] = clean[[0, 130, 299]]
    assert (spoilt == clean).all()
    x[5] = -np.inf
    end = quantize(kernels, x, 0.1, zero, activation=activation)[5]
    assert end == (zero if activation == "relu" else range_.min)  # GELU: 0 times infinity


@pytest.mark.parametrize("kernels", FAST, ids=str)
def test_thread_counts_change_nothing(kernels):
    x = draw(2, 100_000, 0.1)
    alone = quantize(kernels, x, 0.1, ZEROS[1], activation="gelu")
    for threads in (2, 3, 4):
        found = quantize(kernels, x, 0.1, ZEROS[1], activation="gelu", threads=threads)
        assert (found == alone).all()


@pytest.mark.parametrize("kernels", BACKENDS, ids=str)
@pytest.mark.parametrize("shape", [(0, 5), (3, 0), (0, 0)])
def test_empty_axes_are_no_work(shape, kernels):
    assert quantize(kernels, np.zeros(shape, np.float32), 1.0, ZEROS[0]).shape == shape


@pytest.mark.parametrize("kernels", BACKENDS[:1], ids=str)
@pytest.mark.parametrize("activation", [-1, 3])
def test_unknown_activations_are_named(activation, kernels):
    with pytest.raises(ValueError, match=f"activation is 0, 1 or 2, got {activation}"):
        quantize(kernels, draw(3, 5, 1.0), 1.0, ZEROS[0], activation=activation)


@pytest.mark.parametrize("zero", ZEROS[1::3], ids=lambda zero: str(zero.dtype))
@pytest.mark.parametrize("shape", [(96,), (3, 96), (2, 3, 5, 96), (2, 0, 96)])
def test_in_onnxruntime_it_is_the_same(shape, zero):
    x = draw(4, shape, 0.02)
    inputs = {"x": x, "scale": np.array(0.02, np.float32), "zero": np.array(zero)}
    for number, activation in enumerate(ACTIVATIONS):
        attributes = {"activation": number}
        actual = node.run("Quantize", inputs, attributes, rank=len(shape), threads=2)
        assert actual.dtype == zero.dtype
        expected = quantize(FAST[0], x, 0.02, zero, activation=activation)
        assert (actual == expected).all()
