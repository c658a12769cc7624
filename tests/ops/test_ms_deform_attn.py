"""MSDeformAttn's native kernels against the definition, on every instruction set here."""

import numpy as np
import pytest

from tests import tolerance
from tests.ops import reference
from tests.ops.native import BACKENDS, FAST, loaded, needs_library, stored

pytestmark = needs_library

# name -> (level shapes, N, M, D, P). Each is here for a reason.
CASES = {
    "one_pixel": (((1, 1),), 1, 1, 1, 1),
    "odd_channels": (((5, 7), (3, 2)), 1, 3, 17, 2),  # vectors end inside a head
    "flat_levels": (((1, 9), (8, 1)), 2, 2, 8, 3),  # H != W, degenerate sides
    "primes": (((13, 7), (3, 5), (2, 3)), 2, 5, 11, 5),
    "more_samples_than_lanes": (((4, 4), (2, 2)), 1, 2, 4, 9),  # L * P = 18
    "wide_heads": (((6, 5),), 1, 2, 80, 4),  # a chunk of 32 channels, and a rest
    "several_tiles": (((23, 29), (5, 7)), 1, 1, 32, 4),  # 702 queries, 512 in a task
    "mask2former": (((4, 5), (8, 10), (16, 20)), 2, 8, 32, 4),  # its pixel decoder
}
FAR = (-1e30, -50.0, 50.0, 1e30, np.inf, -np.inf, np.nan)


class Case:
    def __init__(self, levels, n, m, d, p, seed=0, reach=3.0):
        rng = np.random.default_rng(seed)
        positions = sum(h * w for h, w in levels)
        self.levels = levels
        self.sizes = {"heads": m, "points": p}
        self.offsets = 2 * m * len(levels) * p
        self.value = rng.standard_normal((n, positions, m * d)).astype(np.float32)
        width = 3 * m * len(levels) * p
        self.sampling = rng.standard_normal((n, positions, width)).astype(np.float32)
        self.sampling[..., : self.offsets] *= reach

    def actual(self, kernels, **options):
        inputs = (self.value, self.sampling, self.levels)
        return kernels.ms_deform_attn(*inputs, **self.sizes, **options)

    def error(self, kernels, storage="float32", value_scale=None):
        """Largest error, and its bound; an int8 value where it has a scale."""
        inputs = [loaded(stored(x, storage), storage) for x in (self.value, self.sampling)]
        if value_scale is not None:
            inputs[0] = self.value.astype(np.float64) * np.float64(np.float32(value_scale))
        expected = reference.ms_deform_attn(*inputs, self.levels, **self.sizes)
        actual = self.actual(kernels, storage=storage, value_scale=value_scale)
        actual = loaded(actual, storage)
        bound = tolerance.deformable(*inputs, self.levels)
        return abs(actual - expected).max(), tolerance.stored(bound, expected, storage)


@pytest.mark.parametrize("kernels", BACKENDS, ids=str)
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_matches_the_definition(case, kernels):
    error, bound = Case(*case).error(kernels)
    assert error <= bound


@pytest.mark.parametrize("storage", ["float16", "bfloat16"])
@pytest.mark.parametrize("kernels", BACKENDS, ids=str)
@pytest.mark.parametrize("name", ["odd_channels", "mask2former"])
def test_other_storage_rounds_once(name, kernels, storage):
    error, bound = Case(*CASES[name]).error(kernels, storage)
    assert error <= bound


@pytest.mark.parametrize("storage", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("kernels", BACKENDS, ids=str)
@pytest.mark.parametrize("name", ["odd_channels", "mask2former"])
def test_int8_value_stands_for_its_product_with_the_scale(name, kernels, storage):
    case, scale = Case(*CASES[name]), 0.03125 * 1.1
    case.value = np.clip(np.rint(case.value / scale), -128, 127).astype(np.int8)
    case.value[0, 0, :2] = -128, 127
    error, bound = case.error(kernels, storage, scale)
    assert error <= bound


@pytest.mark.parametrize("kernels", FAST[:1], ids=str)
@pytest.mark.parametrize("scale", [0.0, -1.0, np.nan, np.inf])
def test_a_scale_that_is_none_is_refused(kernels, scale):
    case = Case(*CASES["one_pixel"])
    with pytest.raises(ValueError, match=r"value_scale of an int8 value is .*above 0"):
        case.actual(kernels, value_scale=scale)


@pytest.mark.parametrize("kernels", BACKENDS, ids=str)
def test_points_far_outside_read_zero(kernels):
    case = Case(*CASES["primes"])
    for far in FAR:
        case.sampling[..., : case.offsets] = far
        assert not case.actual(kernels).any(), f"offset {far} must sample nothing"


@pytest.mark.parametrize("kernels", BACKENDS, ids=str)
def test_sampling_a_centre_returns_that_pixel(kernels):
    case = Case(((3, 4),), 1, 1, 5, 1)
    case.sampling[..., : case.offsets] = 0.0
    bound = tolerance.deformable(case.value, case.sampling, case.levels)
    assert abs(case.actual(kernels) - case.value).max() <= bound


@pytest.mark.parametrize("kernels", FAST, ids=str)
def test_logits_that_are_no_numbers_stay_in_their_head(kernels):
    case = Case(*CASES["primes"])
    clean = case.actual(kernels)
    case.sampling[0, 5, case.offsets] = np.nan  # a logit of head 0 of query 5
    spoilt = case.actual(kernels)
    assert np.isnan(spoilt[0, 5, :11]).all()
    spoilt[0, 5, :11] = clean[0, 5, :11]
    assert (spoilt == clean).all()


@pytest.mark.parametrize("kernels", FAST, ids=str)
def test_thread_counts_change_nothing(kernels):
    for name in ("several_tiles", "mask2former"):
        case = Case(*CASES[name])
        alone = case.actual(kernels)
        coarse = {"value_scale": 0.5, "storage": "float16"}
        case.value = (case.value * 20).astype(np.int8)
        alone_coarse = case.actual(kernels, **coarse)
        for threads in (2, 3, 4):
            again = case.actual(kernels, threads=threads, **coarse)
            assert (again == alone_coarse).all(), (name, threads)
        case = Case(*CASES[name])
        for threads in (2, 3, 4):
            assert (case.actual(kernels, threads=threads) == alone).all(), (name, threads)


@pytest.mark.parametrize("kernels", BACKENDS, ids=str)
def test_an_empty_batch_is_no_work(kernels):
    assert Case(((2, 3),), 0, 1, 4, 1).actual(kernels).shape == (0, 6, 4)


@pytest.mark.parametrize("kernels", FAST, ids=str)
def test_random_shapes(kernels):
    rng = np.random.default_rng(1)
    for seed in range(25):
        levels = tuple(
            tuple(rng.integers(1, 12, 2).tolist()) for _ in range(rng.integers(1, 5))
        )
        n, m, d, p = rng.integers(1, (3, 5, 70, 7)).tolist()
        case = Case(levels, n, m, d, p, seed=seed, reach=10.0 ** rng.integers(-1, 4))
        error, bound = case.error(kernels)
        assert error <= bound, (levels, n, m, d, p)
        case.value = rng.integers(-128, 128, case.value.shape, np.int8)
        storage = rng.choice(["float32", "float16", "bfloat16"])
        error, bound = case.error(kernels, storage, 10.0 ** rng.integers(-6, 3))
        assert error <= bound, (levels, n, m, d, p, storage)


@pytest.mark.parametrize("value_scale", [None, 0.5], ids=["same_type", "int8"])
@pytest.mark.parametrize("storage", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("kernels", BACKENDS, ids=str)
def test_any_bits_are_safe(kernels, storage, value_scale):
    """Every bit pattern is some number; under the sanitizers this reads nothing outside.

    Where no logit is a NaN or infinite, an int8 value leaves nothing but numbers behind.
    """
    rng = np.random.default_rng(2)
    case = Case(*CASES["primes"])
    dtype = {"float32": np.uint32}.get(storage, np.uint16)
    bits = rng.integers(0, np.iinfo(dtype).max, case.sampling.shape, dtype, endpoint=True)
    case.sampling[..., : case.offsets] = loaded_bits(bits, storage)[..., : case.offsets]
    if value_scale is None:
        value = rng.integers(0, np.iinfo(dtype).max, case.value.shape, dtype, endpoint=True)
        case.value = loaded_bits(value, storage)
    else:
        case.value = rng.integers(-128, 128, case.value.shape, np.int8)
    with np.errstate(over="ignore", invalid="ignore"):
        result = case.actual(kernels, storage=storage, value_scale=value_scale)
    if value_scale is not None:
        assert (abs(loaded(result, storage)) <= 64 * tolerance.ROUNDED_UP).all()


def loaded_bits(bits, storage):
    """Bit patterns of a type as float32."""
    with np.errstate(invalid="ignore"):
        array = bits if storage == "bfloat16" else bits.view(storage)
        return loaded(array, storage).astype(np.float32)


@pytest.mark.parametrize("kernels", FAST[:1], ids=str)
@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"heads": 3}, "heads 3 does not divide the 8 channels of value"),
        ({"heads": 0}, "heads 0 does not divide"),
        ({"points": 2}, r"last axis of 12, expected heads \* levels \* points \* 3 = 24"),
        ({"points": 2**40}, "1 to 64 samples"),
        ({"levels": ((2, 2),)}, "the levels have 4 pixels, but value has S = 6"),
        ({"levels": ((2, 0),)}, "level 0 is 2 x 0, expected sides of 1"),
        ({"levels": ((2**20, 2**20),)}, "at most 2.31 pixels"),
        ({"levels": ((1, 1),) * 9}, "takes 1 to 8 levels, got 9"),
        (
            {"sampling": np.zeros((1, 5, 12), "f")},
            r"value has .* \[1, 6\], but sampling \[1, 5",
        ),
    ],
)
def test_wrong_shapes_name_both_sizes(kernels, change, sentence):
    arguments = {
        "value": np.zeros((1, 6, 8), "f"),
        "sampling": np.zeros((1, 6, 12), "f"),
        "levels": ((2, 3),),
        "heads": 4,
        "points": 1,
    }
    with pytest.raises(ValueError, match=sentence):
        kernels.ms_deform_attn(**(arguments | change))
