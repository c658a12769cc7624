"""WindowAttention's native kernels against the definition, PyTorch, and the exported nodes."""

import numpy as np
import onnxruntime
import pytest

from tests import tolerance
from tests.fused.windows import Case, attended
from tests.ops.native import BACKENDS, FAST, PATH, needs_library

pytestmark = needs_library

# name -> (N, H, W, M, D, w). Each is here for a reason; vectors have 4, 8 or 16 lanes, blocks
# 7 queries, tasks 6 heads.
CASES = {
    "one_of_each": (1, 1, 1, 1, 1, 1),
    "smaller_than_a_window": (1, 3, 5, 2, 8, 7),
    "whole_windows": (1, 14, 21, 2, 32, 7),
    "a_pixel_more": (1, 8, 15, 2, 16, 7),
    "a_batch": (2, 9, 5, 3, 4, 4),
    "primes": (2, 7, 11, 3, 17, 5),
    "more_heads_than_a_task": (1, 10, 10, 13, 8, 7),
    "swin_large": (1, 13, 16, 2, 32, 12),
    "wide_heads": (1, 4, 6, 1, 72, 3),
}
SHIFTS = {"still": lambda w: 0, "shifted": lambda w: w // 2}


def bound_of(case):
    return tolerance.window_attention(*case.arrays)


@pytest.mark.parametrize("kernels", BACKENDS, ids=str)
@pytest.mark.parametrize("shift", SHIFTS.values(), ids=SHIFTS)
@pytest.mark.parametrize("sizes", CASES.values(), ids=CASES)
def test_matches_the_definition(sizes, shift, kernels):
    case = Case(*sizes, shift=shift(sizes[-1]))
    assert abs(case.actual(kernels) - case.by_definition()).max() <= bound_of(case)


@pytest.mark.parametrize("kernels", FAST[:1], ids=str)
@pytest.mark.parametrize("shift", SHIFTS.values(), ids=SHIFTS)
@pytest.mark.parametrize("sizes", CASES.values(), ids=CASES)
def test_matches_pytorch(sizes, shift, kernels):
    case = Case(*sizes, shift=shift(sizes[-1]))
    assert abs(case.actual(kernels) - case.by_block()).max() <= bound_of(case)


@pytest.mark.parametrize("shift", SHIFTS.values(), ids=SHIFTS)
@pytest.mark.parametrize("name", ["smaller_than_a_window", "whole_windows", "primes"])
def test_the_node_equals_the_exported_nodes(name, shift):
    case = Case(*CASES[name], shift=shift(CASES[name][-1]))
    inputs = dict(zip(("qkv", "padding", "position_bias"), case.arrays, strict=True))
    alone = session(case.node())
    actual = alone.run(None, inputs)[0]
    pixels = {"pixels": case.pixels.astype(np.float32)}
    expected = session(case.nodes()).run(None, pixels)[0]
    assert abs(actual - expected).max() <= 2 * bound_of(case)  # each may be off by one
    assert alone.get_outputs()[0].shape == list(expected.shape)
    assert (actual == case.actual(FAST[0], threads=2)).all()


def session(model):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 2
    options.register_custom_ops_library(str(PATH))
    return onnxruntime.InferenceSession(model.SerializeToString(), options)


@pytest.mark.parametrize("kernels", BACKENDS, ids=str)
@pytest.mark.parametrize("shift", range(5))
def test_any_shift(shift, kernels):
    case = Case(*CASES["primes"], shift=shift)
    assert abs(case.actual(kernels) - case.by_definition()).max() <= bound_of(case)


@pytest.mark.parametrize("kernels", BACKENDS, ids=str)
def test_large_scores_do_not_overflow(kernels):
    """Scores of hundreds: softmax is a choice."""
    case = Case(*CASES["a_pixel_more"], scale=15.0)
    assert abs(case.actual(kernels) - case.by_definition()).max() <= bound_of(case)


@pytest.mark.parametrize("kernels", BACKENDS, ids=str)
def test_a_map_without_padding_does_not_look_at_it(kernels):
    case = Case(*CASES["whole_windows"], shift=3)
    clean = case.actual(kernels)
    case.arrays[1][:] = np.nan
    assert (case.actual(kernels) == clean).all()


@pytest.mark.parametrize("kernels", FAST, ids=str)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("part", range(3), ids=["query", "key", "value"])
def test_what_is_no_number_spreads_as_in_the_plain_loops(part, bad, kernels):
    sizes, head, channel = CASES["more_heads_than_a_task"], 5, 2
    heads, depth = sizes[3:5]
    case = Case(*sizes, shift=3)
    clean, bound = case.actual(kernels), bound_of(case)
    case.arrays[0][0, 4, 8, (part * heads + head) * depth + channel] = bad
    spoilt, plain = case.actual(kernels), case.actual(BACKENDS[-1])
    finite = np.isfinite(plain)
    assert not finite.all()
    assert (spoilt[~finite].astype(str) == plain[~finite].astype(str)).all()
    assert abs(spoilt[finite] - plain[finite]).max() <= 2 * bound
    others = np.arange(heads * depth) // depth != head
    assert (spoilt == clean)[..., others].all()


@pytest.mark.parametrize("kernels", FAST, ids=str)
def test_thread_counts_change_nothing(kernels):
    for name in ("more_heads_than_a_task", "whole_windows"):
        case = Case(*CASES[name], shift=3)
        alone = case.actual(kernels)
        for threads in (2, 3, 4):
            assert (case.actual(kernels, threads=threads) == alone).all(), (name, threads)


@pytest.mark.parametrize("kernels", BACKENDS, ids=str)
@pytest.mark.parametrize("sizes", [(0, 3, 5, 2, 4), (2, 0, 5, 2, 4), (2, 3, 0, 2, 4)])
def test_empty_axes_are_no_work(sizes, kernels):
    assert Case(*sizes, 3, shift=1).actual(kernels).size == 0


@pytest.mark.parametrize("kernels", BACKENDS, ids=str)
def test_no_channels_are_no_work(kernels):
    arrays = [np.zeros(shape, "f") for shape in ((1, 4, 5, 0), (3, 0), (2, 9, 9))]
    assert attended(kernels, *arrays, window=3, shift=1).shape == (1, 4, 5, 0)


@pytest.mark.parametrize("kernels", FAST, ids=str)
def test_random_shapes(kernels):
    rng = np.random.default_rng(1)
    for seed in range(25):
        sizes = rng.integers(1, (3, 20, 20, 9, 40, 9)).tolist()
        shift = int(rng.integers(0, sizes[-1]))
        case = Case(*sizes, shift=shift, seed=seed)
        error = abs(case.actual(kernels) - case.by_definition()).max()
        assert error <= bound_of(case), (sizes, shift)


@pytest.mark.parametrize("kernels", FAST[:1], ids=str)
@pytest.mark.parametrize(
    ("index", "shape", "changes", "sentence"),
    [
        (0, (1, 4, 5, 25), {}, "axis E of qkv is 3 C, got 25 with C 8 in padding"),
        (1, (3, 6), {}, "axis E of qkv is 3 C, got 24 with C 6 in padding"),
        (1, (2, 8), {}, "axis Q of padding is 3, got 2"),
        (2, (2, 9, 4), {}, "two axes T, got 9 and 4"),
        (2, (2, 8, 8), {}, "axis T is 8 in position_bias, not the square of window 3"),
        (2, (3, 9, 9), {}, "axis M, 3 in position_bias, does not divide the 8 channels"),
        (2, (0, 9, 9), {}, "axis M, 0 in position_bias, does not divide the 8 channels"),
        (2, (2, 9, 9), {"window": 4}, "is 9 in position_bias, not the square of window 4"),
        (2, (2, 9, 9), {"window": 0}, "window is at least 1, got 0"),
        (2, (2, 9, 9), {"shift": 3}, "shift is from 0 to below window 3, got 3"),
        (2, (2, 9, 9), {"shift": -1}, "shift is from 0 to below window 3, got -1"),
    ],
)
def test_wrong_shapes_name_both_sizes(kernels, index, shape, changes, sentence):
    arrays = [np.zeros(s, "f") for s in ((1, 4, 5, 24), (3, 8), (2, 9, 9))]
    arrays[index] = np.zeros(shape, "f")
    with pytest.raises(ValueError, match=sentence):
        attended(kernels, *arrays, **{"window": 3, "shift": 1, **changes})
