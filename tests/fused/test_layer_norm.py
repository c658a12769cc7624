"""LayerNorm's native kernels against the definition, on every instruction set here."""

import numpy as np
import pytest

from tests.fused import node
from tests.fused.norms import draw, layer_norm, layer_norm_expected
from tests.ops.native import BACKENDS, FAST, needs_library

pytestmark = needs_library

# (rows, C). Each is here for a reason; vectors have 4 to 16 floats and are summed by fours.
SHAPES = {
    "one_of_each": (1, 1),
    "less_than_a_vector": (5, 3),
    "a_float_more": (4, 17),
    "four_vectors_and_some": (3, 79),
    "swin": (43, 96),
    "several_tasks": (131, 256),
    "merged_patches": (9, 1536),
    "a_row_for_each_task": (3, 20011),
}


@pytest.mark.parametrize("kernels", BACKENDS, ids=str)
@pytest.mark.parametrize("mean", [0.0, 3.0, -1000.0])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_matches_the_definition(shape, mean, kernels):
    inputs = draw(0, shape, shape[1], mean=mean)
    assert layer_norm_expected(*inputs).worst(layer_norm(kernels, *inputs)) <= 1


@pytest.mark.parametrize("kernels", BACKENDS, ids=str)
def test_a_large_mean_costs_less_than_its_own_rounding(kernels):
    """Two passes in exact arithmetic would be off by more, with a mean rounded to float32."""
    x, weight, bias = draw(1, (64, 384), 384, mean=1000.0)
    expected = layer_norm_expected(x, weight, bias)
    wide = x.astype(np.float64)
    centred = wide - wide.mean(-1, keepdims=True).astype(np.float32)
    deviation = np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5)
    rounded = centred / deviation * weight + bias
    assert expected.worst(layer_norm(kernels, x, weight, bias)) < expected.worst(rounded) / 4


@pytest.mark.parametrize("kernels", BACKENDS, ids=str)
@pytest.mark.parametrize("value", [0.0, 0.1, -1e3])
def test_rows_of_one_value_have_no_deviation(kernels, value):
    _, weight, bias = draw(2, (1, 96), 96)
    x = np.full((7, 96), value, np.float32)
    expected = layer_norm_expected(x, weight, bias)
    assert expected.worst(layer_norm(kernels, x, weight, bias)) <= 1


@pytest.mark.parametrize("kernels", BACKENDS, ids=str)
@pytest.mark.parametrize("epsilon", [0.0, 1.0])
def test_epsilon_is_added_to_the_variance(kernels, epsilon):
    inputs = draw(3, (5, 96), 96, deviation=0.5)
    actual = layer_norm(kernels, *inputs, epsilon=epsilon)
    assert layer_norm_expected(*inputs, epsilon=epsilon).worst(actual) <= 1


@pytest.mark.parametrize("kernels", BACKENDS, ids=str)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_rows_that_are_no_numbers_stay_alone(kernels, bad):
    inputs = draw(4, (9, 83), 83)
    clean = layer_norm(kernels, *inputs)
    inputs[0][[2, 7], [82, 5]] = bad
    spoilt = layer_norm(kernels, *inputs)
    assert np.isnan(spoilt[[2, 7]]).all()
    spoilt[[2, 7]] = clean[[2, 7]]
    assert (spoilt == clean).all()


@pytest.mark.parametrize("kernels", FAST, ids=str)
def test_thread_counts_change_nothing(kernels):
    inputs = draw(5, (1000, 96), 96)
    alone = layer_norm(kernels, *inputs)
    for threads in (2, 3, 4):
        assert (layer_norm(kernels, *inputs, threads=threads) == alone).all()


@pytest.mark.parametrize("kernels", BACKENDS, ids=str)
@pytest.mark.parametrize("shape", [(0, 5), (3, 0), (0, 0)])
def test_empty_axes_are_no_work(kernels, shape):
    assert layer_norm(kernels, *draw(6, shape, shape[1])).shape == shape


@pytest.mark.parametrize("kernels", BACKENDS, ids=str)
def test_shapes_drawn_at_random(kernels):
    for seed in range(60):
        rng = np.random.default_rng(seed)
        shape = tuple(rng.integers(1, (40, 300)))
        mean, deviation = rng.normal(0, 100), 10 ** rng.uniform(-2, 3)
        inputs = draw(seed, shape, shape[1], mean=mean, deviation=deviation)
        assert layer_norm_expected(*inputs).worst(layer_norm(kernels, *inputs)) <= 1, shape


@pytest.mark.parametrize("kernels", FAST[:1], ids=str)
@pytest.mark.parametrize(("index", "name"), [(1, "weight"), (2, "bias")])
def test_wrong_shapes_name_both_sizes(kernels, index, name):
    inputs = list(draw(7, (3, 8), 8))
    inputs[index] = inputs[index][:7]
    with pytest.raises(ValueError, match=f"axis C is 7 in {name}, but 8 in x"):
        layer_norm(kernels, *inputs)


@pytest.mark.parametrize("shape", [(96,), (3, 96), (2, 3, 5, 96), (2, 0, 96)])
def test_in_onnxruntime_it_is_the_same(shape):
    x, weight, bias = draw(8, shape, 96)
    inputs = {"x": x, "weight": weight, "bias": bias}
    actual = node.run("LayerNorm", inputs, {"epsilon": 1e-3}, rank=len(shape), threads=2)
    expected = layer_norm(FAST[0], x.reshape(-1, 96), weight, bias, epsilon=1e-3)
    assert (actual == expected.reshape(shape)).all()


def test_onnxruntime_says_what_disagrees():
    x, weight, bias = draw(8, (3, 8), 8)
    inputs = {"x": x, "weight": weight[:7], "bias": bias}
    with pytest.raises(Exception, match="axis C is 7 in weight, but 8 in x"):
        node.run("LayerNorm", inputs, {}, rank=2)
