"""MaskedAttention's native kernels against the definition, on every instruction set here."""

import numpy as np
import pytest

from tests import tolerance
from tests.ops import reference
from tests.ops.native import BACKENDS, FAST, loaded, needs_library, stored

pytestmark = needs_library

# name -> (N, Q, S, M, D). Each is here for a reason; blocks have 64 keys, tasks 64 queries.
CASES = {
    "one_of_each": (1, 1, 1, 1, 1),
    "primes": (2, 7, 67, 3, 17),
    "one_block": (1, 5, 64, 2, 8),
    "a_key_more": (1, 4, 65, 2, 8),
    "a_key_less": (1, 3, 63, 2, 24),
    "several_tiles": (1, 131, 130, 2, 16),
    "wide_heads": (1, 6, 70, 1, 72),
    "mask2former": (2, 100, 320, 8, 32),
}
MASKS = {
    "mixed": lambda rng, shape: rng.standard_normal(shape),
    "nothing_hidden": lambda _, shape: np.ones(shape),
    "all_hidden_attends_everywhere": lambda _, shape: -np.ones(shape),
    # Whole blocks of 64 hidden from all, some rows hidden from nothing or everything.
    "blocks": lambda rng, shape: np.where(
        (np.arange(shape[2]) // 64 % 2 == 0) | (rng.random((*shape[:2], 1)) < 0.2),
        rng.choice([-1.0, -1.0, 2.0], (*shape[:2], 1)),
        -0.5,
    ),
    "one_position": lambda rng, shape: np.where(
        np.arange(shape[2]) == rng.integers(0, shape[2], (*shape[:2], 1)), 1.0, -1.0
    ),
    "zero_is_seen": lambda rng, shape: rng.choice([0.0, -0.0, -1e-38, -1.0], shape),
}


class Case:
    def __init__(self, n, q, s, m, d, mask="mixed", seed=0, scale=1.0):
        rng = np.random.default_rng(seed)
        self.heads = m
        self.arrays = [
            (scale * rng.standard_normal((n, rows, m * d))).astype(np.float32)
            for rows in (q, s, s)
        ]
        self.arrays.append(MASKS[mask](rng, (n, q, s)).astype(np.float32))

    def actual(self, kernels, **options):
        return kernels.masked_attention(*self.arrays, heads=self.heads, **options)

    def error(self, kernels, storage="float32"):
        """Largest error, and its bound."""
        inputs = [loaded(stored(x, storage), storage) for x in self.arrays]
        expected = reference.masked_attention(*inputs, heads=self.heads)
        actual = loaded(self.actual(kernels, storage=storage), storage)
        bound = tolerance.attention(*inputs[:3], self.heads)
        return abs(actual - expected).max(), tolerance.stored(bound, expected, storage)


@pytest.mark.parametrize("kernels", BACKENDS, ids=str)
@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_matches_the_definition(case, mask, kernels):
    error, bound = Case(*case, mask=mask).error(kernels)
    assert error <= bound


@pytest.mark.parametrize("storage", ["float16", "bfloat16"])
@pytest.mark.parametrize("kernels", BACKENDS, ids=str)
@pytest.mark.parametrize("name", ["primes", "mask2former"])
def test_other_storage_rounds_once(name, kernels, storage):
    error, bound = Case(*CASES[name]).error(kernels, storage)
    assert error <= bound


@pytest.mark.parametrize("kernels", BACKENDS, ids=str)
def test_large_scores_do_not_overflow(kernels):
    """Scores of thousands: softmax is a choice, its statistics are raised block by block."""
    case = Case(1, 9, 300, 2, 16, scale=30.0)
    error, bound = case.error(kernels)
    assert error <= bound


@pytest.mark.parametrize("kernels", BACKENDS, ids=str)
def test_a_mask_that_is_no_number_is_seen(kernels):
    case = Case(1, 3, 70, 2, 8, mask="one_position")
    mask = case.arrays[3]
    case.arrays[3] = np.where(mask > 0, mask, np.nan).astype(np.float32)
    spoilt = case.actual(kernels)
    case.arrays[3] = np.ones_like(mask)
    assert (spoilt == case.actual(kernels)).all()


@pytest.mark.parametrize("kernels", FAST, ids=str)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_queries_that_are_no_numbers_stay_alone(kernels, bad):
    case = Case(*CASES["several_tiles"])
    clean = case.actual(kernels)
    case.arrays[0][0, 77] = bad
    spoilt = case.actual(kernels)
    assert np.isnan(spoilt[0, 77]).all()
    spoilt[0, 77] = clean[0, 77]
    assert (spoilt == clean).all()


@pytest.mark.parametrize("kernels", FAST, ids=str)
def test_thread_counts_change_nothing(kernels):
    for name in ("several_tiles", "mask2former"):
        case = Case(*CASES[name])
        alone = case.actual(kernels)
        for threads in (2, 3, 4):
            assert (case.actual(kernels, threads=threads) == alone).all(), (name, threads)


@pytest.mark.parametrize("kernels", BACKENDS, ids=str)
@pytest.mark.parametrize(("n", "q", "s"), [(0, 3, 5), (2, 0, 5), (2, 3, 0)])
def test_empty_axes_are_no_work(kernels, n, q, s):
    output = kernels.masked_attention(
        *(np.ones(shape, np.float32) for shape in ((n, q, 4), (n, s, 4), (n, s, 4), (n, q, s))),
        heads=2,
    )
    assert output.shape == (n, q, 4)
    assert not output.any()


@pytest.mark.parametrize("kernels", FAST, ids=str)
def test_random_shapes(kernels):
    rng = np.random.default_rng(1)
    for seed in range(25):
        shape = rng.integers(1, (3, 90, 260, 5, 70)).tolist()
        mask = list(MASKS)[seed % len(MASKS)]
        error, bound = Case(*shape, mask=mask, seed=seed).error(kernels)
        assert error <= bound, (shape, mask)


@pytest.mark.parametrize("kernels", FAST[:1], ids=str)
@pytest.mark.parametrize(
    ("index", "shape", "sentence"),
    [
        (1, (2, 7, 8), "axis N is 2 in k, but 1 in q"),
        (2, (1, 6, 8), "axis S is 6 in v, but 7 in k"),
        (2, (1, 7, 6), "axis C is 6 in v, but 8 in q"),
        (3, (1, 5, 9), "axis S is 9 in mask_logits, but 7 in k"),
        (3, (1, 4, 7), "axis Q is 4 in mask_logits, but 5 in q"),
        (0, (1, 5, 9), "heads 2 does not divide the 9 channels of q"),
    ],
)
def test_wrong_shapes_name_both_sizes(kernels, index, shape, sentence):
    arrays = [np.zeros(s, "f") for s in ((1, 5, 8), (1, 7, 8), (1, 7, 8), (1, 5, 7))]
    arrays[index] = np.zeros(shape, "f")
    with pytest.raises(ValueError, match=sentence):
        kernels.masked_attention(*arrays, heads=2)


@pytest.mark.parametrize("storage", ["float16", "bfloat16"])
@pytest.mark.parametrize("kernels", BACKENDS, ids=str)
def test_ties_round_to_even(kernels, storage):
    """The mean of two neighbours lies between them: subnormal, normal, the largest."""
    largest = {"float16": 0x7BFF, "bfloat16": 0x7EFF}[storage]
    low = np.unique(np.r_[np.arange(0, largest, 97), 0x3FF, 0x400, largest - 1]).astype(
        np.uint16
    )
    bits = np.stack([low, low + 1])
    pair = loaded(bits.view(np.uint16 if storage == "bfloat16" else np.float16), storage)
    zeros = np.zeros((1, 2, len(low)), np.float32)
    inputs = (zeros[:, :1], zeros, pair[None].astype(np.float32), zeros[:, :1, :2])
    actual = kernels.masked_attention(*inputs, heads=1, storage=storage)
    assert (actual.view(np.uint16) == np.where(low % 2, low + 1, low)).all()
