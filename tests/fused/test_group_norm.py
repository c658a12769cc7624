"""GroupNorm's native kernels against the definition, on every instruction set here."""

import numpy as np
import pytest
from onnx import helper
from onnx.reference import ReferenceEvaluator

from tests import tolerance
from tests.fused import node
from tests.fused.norms import draw, enlarged, group_norm, group_norm_expected
from tests.ops.native import BACKENDS, FAST, needs_library

pytestmark = needs_library

# (N, C, H, W, groups). Each is here for a reason; means are taken of parts of 4096 floats.
SHAPES = {
    "one_of_each": (1, 1, 1, 1, 1),
    "pixels_less_than_a_vector": (2, 6, 1, 3, 3),
    "channels_end_within_vectors": (2, 12, 7, 5, 4),
    "a_group_for_each_channel": (1, 5, 3, 19, 5),
    "a_group_of_a_part": (1, 4, 64, 32, 2),
    "a_float_more_than_a_part": (1, 34, 17, 241, 34),
    "mask2former": (1, 256, 16, 16, 32),
    "whole_groups_of_parts": (2, 64, 33, 95, 16),
    "slices": (1, 3, 150, 151, 1),
    "slices_of_several_groups": (2, 4, 131, 140, 2),
}


@pytest.mark.parametrize("kernels", BACKENDS, ids=str)
@pytest.mark.parametrize("activation", [0, 1], ids=["plain", "relu"])
@pytest.mark.parametrize("mean", [0.0, -1000.0])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_matches_the_definition(shape, mean, activation, kernels):
    options = {"groups": shape[4], "activation": activation}
    inputs = draw(0, shape[:4], shape[1], mean=mean)
    expected = group_norm_expected(*inputs, **options)
    assert expected.worst(group_norm(kernels, *inputs, **options)) <= 1


# (N, C, H, W, groups) with a coarse map: its rows end within vectors, slices within its rows.
ENLARGED = {
    "one_pixel": (1, 2, 2, 2, 1),
    "one_column": (2, 4, 10, 2, 2),
    "one_row": (1, 4, 2, 26, 2),
    "rows_end_within_vectors": (2, 6, 14, 46, 3),
    "whole_groups": (1, 64, 32, 64, 32),
    "slices": (1, 3, 150, 154, 1),
}


@pytest.mark.parametrize("kernels", BACKENDS, ids=str)
@pytest.mark.parametrize("activation", [0, 1], ids=["plain", "relu"])
@pytest.mark.parametrize("shape", ENLARGED.values(), ids=ENLARGED)
def test_a_coarse_map_is_enlarged_and_added(shape, activation, kernels):
    options = {"groups": shape[4], "activation": activation}
    inputs = *draw(1, shape[:4], shape[1], mean=3.0), coarse_map(shape)
    expected = group_norm_expected(*inputs, **options)
    actual = group_norm(kernels, *inputs, **options)
    assert expected.worst(actual) <= 1
    assert (group_norm(kernels, *inputs, **options, threads=3) == actual).all()


def coarse_map(shape):
    n, c, h, w = shape[:4]
    rng = np.random.default_rng(9)
    return rng.standard_normal((n, c, h // 2, w // 2)).astype(np.float32)


@pytest.mark.parametrize("kernels", BACKENDS, ids=str)
def test_parts_may_have_means_of_their_own(kernels):
    """Their deviations from each other are most of the variance."""
    x, weight, bias = draw(1, (1, 8, 64, 128), 8)
    x += np.repeat(np.arange(16) * 50, 4096).reshape(x.shape)
    expected = group_norm_expected(x, weight, bias, groups=2)
    assert expected.worst(group_norm(kernels, x, weight, bias, groups=2)) <= 1


@pytest.mark.parametrize("kernels", BACKENDS, ids=str)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("activation", [0, 1], ids=["plain", "relu"])
def test_groups_that_are_no_numbers_stay_alone(kernels, bad, activation):
    options = {"groups": 4, "activation": activation}
    inputs = draw(2, (2, 8, 33, 41), 8)
    clean = group_norm(kernels, *inputs, **options)
    inputs[0][1, 3, 20, 40] = bad
    spoilt = group_norm(kernels, *inputs, **options)
    assert np.isnan(spoilt[1, 2:4]).all()
    spoilt[1, 2:4] = clean[1, 2:4]
    assert (spoilt == clean).all()


@pytest.mark.parametrize("kernels", FAST, ids=str)
@pytest.mark.parametrize("name", ["mask2former", "slices", "slices_of_several_groups"])
def test_thread_counts_change_nothing(kernels, name):
    *shape, groups = SHAPES[name]
    inputs = draw(3, shape, shape[1])
    alone = group_norm(kernels, *inputs, groups=groups)
    for threads in (2, 3, 4):
        found = group_norm(kernels, *inputs, groups=groups, threads=threads)
        assert (found == alone).all()


@pytest.mark.parametrize("kernels", FAST, ids=str)
def test_images_are_the_same_in_a_batch(kernels):
    """32 groups are a task each, and two are cut into slices."""
    inputs = draw(4, (16, 4, 120, 151), 4)
    together = group_norm(kernels, *inputs, groups=2)
    alone = group_norm(kernels, inputs[0][5:6], *inputs[1:], groups=2)
    assert (together[5] == alone[0]).all()


@pytest.mark.parametrize("kernels", BACKENDS, ids=str)
@pytest.mark.parametrize("shape", [(0, 4, 3, 3), (2, 0, 3, 3), (2, 4, 0, 3), (2, 4, 3, 0)])
def test_empty_axes_are_no_work(kernels, shape):
    inputs = draw(5, shape, shape[1])
    assert group_norm(kernels, *inputs, groups=2).shape == shape


@pytest.mark.parametrize("kernels", BACKENDS, ids=str)
def test_shapes_drawn_at_random(kernels):
    for seed in range(40):
        rng = np.random.default_rng(seed)
        n, groups, channels, h, w = rng.integers(1, (3, 9, 4, 40, 70))
        shape = (n, groups * channels, h, w)
        options = {"groups": int(groups), "activation": seed % 2}
        mean, deviation = rng.normal(0, 100), 10 ** rng.uniform(-2, 3)
        inputs = draw(seed, shape, shape[1], mean=mean, deviation=deviation)
        expected = group_norm_expected(*inputs, **options)
        assert expected.worst(group_norm(kernels, *inputs, **options)) <= 1, shape


@pytest.mark.parametrize("kernels", FAST[:1], ids=str)
@pytest.mark.parametrize(
    ("sizes", "options", "sentence"),
    [
        ((7, 8), {"groups": 2}, "axis C is 7 in weight, but 8 in x"),
        ((8, 9), {"groups": 2}, "axis C is 9 in bias, but 8 in x"),
        ((8, 8), {"groups": 3}, "groups 3 does not divide the 8 channels of x"),
        ((8, 8), {"groups": 0}, "groups 0 does not divide the 8 channels of x"),
        ((8, 8), {"groups": 2, "activation": 2}, r"activation is 0 \(none\) or 1 .*, got 2"),
    ],
)
def test_wrong_calls_say_what_is_wrong(kernels, sizes, options, sentence):
    weight, bias = (np.ones(size, np.float32) for size in sizes)
    with pytest.raises(ValueError, match=sentence):
        group_norm(kernels, np.ones((1, 8, 2, 2), np.float32), weight, bias, **options)


@pytest.mark.parametrize("kernels", FAST[:1], ids=str)
@pytest.mark.parametrize(
    ("size", "sentence"),
    [
        ((1, 4, 3, 5), "axis N is 2 in x, but 1 in coarse"),
        ((2, 3, 3, 5), "axis C is 4 in x, but 3 in coarse"),
        ((2, 4, 4, 5), "axis H is 6 in x, but 4 in coarse, which has half"),
        ((2, 4, 3, 6), "axis W is 10 in x, but 6 in coarse, which has half"),
    ],
)
def test_a_coarse_map_has_half_the_size(kernels, size, sentence):
    inputs = *draw(7, (2, 4, 6, 10), 4), np.ones(size, np.float32)
    with pytest.raises(ValueError, match=sentence):
        group_norm(kernels, *inputs, groups=2)


@pytest.mark.parametrize("has_coarse", [False, True], ids=["alone", "coarse"])
def test_in_onnxruntime_it_is_the_same(has_coarse):
    shape = (2, 4, 130, 140)
    inputs = dict(zip(("x", "weight", "bias"), draw(6, shape, 4), strict=True))
    options = {"groups": 2, "epsilon": 1e-3, "activation": 1}
    if has_coarse:
        inputs["coarse"] = coarse_map(shape)
    actual = node.run("GroupNorm", inputs, options, rank=4, threads=2)
    assert (actual == group_norm(FAST[0], *inputs.values(), **options)).all()


def test_onnxs_own_resize_enlarges_so():
    coarse = np.random.default_rng(7).standard_normal((2, 3, 5, 7)).astype(np.float32)
    attributes = {"mode": "linear", "coordinate_transformation_mode": "half_pixel"}
    resize = helper.make_node("Resize", ["x", "", "scales"], ["y"], **attributes)
    found = ReferenceEvaluator(resize).run(
        None, {"x": coarse, "scales": np.float32([1, 1, 2, 2])}
    )
    assert abs(found[0] - enlarged(coarse)).max() <= tolerance.blended(coarse, found[0]).max()
