"""MSDeformAttn's CUDA kernels, run on the CPU, against the definition."""

import ctypes
import dataclasses

import numpy as np
import pytest

from tests import tolerance
from tests.cuda_on_cpu.build import Order, needs_compiler, output
from tests.ops import reference
from tests.ops.native import STORAGE, loaded, stored
from tests.ops.test_ms_deform_attn import CASES, FAR

pytestmark = needs_compiler

SOURCES = ("plugins/ops/ms_deform_attn/cuda.cu", "tests/cuda_on_cpu/ms_deform_attn.cc")
TILED, NARROW, PLAIN = TACTICS = (1, 2, 3)
# (storage of value, of sampling and output)
FORMATS = [(s, s) for s in ("float32", "float16", "bfloat16")]
FORMATS += [("int8", s) for s in ("float32", "float16", "bfloat16")]
SCALE = 0.03125 * 1.1  # of int8 values

# Sizes the tiled kernels take: 3 levels, 8 heads of 32, 4 points.
SMALL = ((2, 2), (3, 2), (5, 11))  # smallest sides, primes, tiles with one column or row
RAGGED = ((4, 5), (8, 10), (9, 17))  # whole tiles, and tiles cut at both sides


@dataclasses.dataclass
class Case:
    """Inputs as one format stores them, and the definition's output in float64."""

    levels: tuple
    format: tuple
    batch: int = 1
    heads: int = 8
    depth: int = 32
    points: int = 4
    reach: float = 3.0

    def __post_init__(self):
        rng = np.random.default_rng(0)
        n, positions = self.batch, sum(h * w for h, w in self.levels)
        samples = self.heads * len(self.levels) * self.points
        value = rng.standard_normal((n, positions, self.heads * self.depth))
        sampling = rng.standard_normal((n, positions, 3 * samples))
        self.offsets = slice(2 * samples)
        sampling[..., self.offsets] *= self.reach
        if self.format[0] == "int8":
            self.value = np.clip(np.rint(value / SCALE), -128, 127).astype(np.int8)
        else:
            self.value = stored(value.astype(np.float32), self.format[0])
        self.sampling = stored(sampling.astype(np.float32), self.format[1])

    def inputs(self):
        """Value and sampling as the float64 numbers they stand for."""
        scale = np.float64(np.float32(SCALE)) if self.format[0] == "int8" else 1.0
        return loaded(self.value, self.format[0]) * scale, loaded(self.sampling, self.format[1])

    def expected(self):
        return reference.ms_deform_attn(
            *self.inputs(), self.levels, heads=self.heads, points=self.points
        )

    def run(self, library, tactic, order=Order.FORWARD):
        """The kernel's output in float64, and what the emulator found."""
        out = output(self.value.shape, self.sampling.dtype)
        sides = np.array(self.levels, np.int64).ravel()
        found = library.call(
            "ms_deform_attn",
            self.value,
            self.sampling,
            out,
            sides.ctypes.data_as(ctypes.c_void_p),
            *(len(self.levels), self.batch, self.heads, self.depth, self.points),
            *(STORAGE[storage] for storage in self.format),
            ctypes.c_float(SCALE if self.format[0] == "int8" else 1.0),
            tactic,
            order=order,
        )
        return loaded(out.view(np.ndarray), self.format[1]), found

    def bound(self):
        value, sampling = self.inputs()
        exact = tolerance.deformable(value, sampling, self.levels)
        blend = tolerance.deformable_device(
            value, len(self.levels) * self.points, self.format[0]
        )
        return tolerance.stored(exact + blend, self.expected(), self.format[1])


@pytest.fixture(scope="module")
def plain_build(kernels):
    return kernels(*SOURCES, checked=False)


@pytest.fixture(scope="module")
def checked_build(kernels):
    return kernels(*SOURCES, checked=True)


def close(case, actual):
    error = abs(actual - case.expected()).max()  # NaN is not close
    return error <= case.bound()


@pytest.mark.parametrize("tactic", TACTICS)
@pytest.mark.parametrize("format_", FORMATS, ids="-".join)
def test_matches_the_definition_in_every_order(format_, tactic, plain_build):
    case = Case(RAGGED, format_, batch=2)
    first, found = case.run(plain_build, tactic)
    assert found == ""
    assert close(case, first)
    for order in (Order.REVERSE, Order.SHUFFLED):
        actual, found = case.run(plain_build, tactic, order)
        assert found == ""
        assert (actual == first).all(), order


@pytest.mark.parametrize("name", CASES)
def test_sizes_that_do_not_fit_tiles_are_done_plainly(name, plain_build):
    levels, n, heads, depth, points = CASES[name]
    case = Case(levels, FORMATS[1], batch=n, heads=heads, depth=depth, points=points)
    actual, found = case.run(plain_build, TILED)
    assert found == ""
    assert close(case, actual)


@pytest.mark.parametrize("tactic", TACTICS)
@pytest.mark.parametrize(
    "format_", [FORMATS[0], FORMATS[1], FORMATS[2], FORMATS[4]], ids="-".join
)
def test_touches_nothing_it_should_not(format_, tactic, checked_build):
    case = Case(SMALL, format_)
    case.sampling[0, 0, case.offsets] = stored([1e4], format_[1])[0]
    actual, found = case.run(checked_build, tactic, Order.SHUFFLED)
    assert found == ""
    assert close(case, actual)


@pytest.mark.parametrize("tactic", [TILED, PLAIN])
@pytest.mark.parametrize("format_", FORMATS, ids="-".join)
def test_points_far_outside_read_zero(format_, tactic, plain_build):
    case = Case(SMALL, format_)
    for far in FAR:
        with np.errstate(over="ignore"):
            case.sampling[..., case.offsets] = stored([far], format_[1])[0]
        actual, found = case.run(plain_build, tactic)
        assert found == ""
        assert not actual.any(), f"offset {far} must sample nothing"


@pytest.mark.parametrize("tactic", [TILED, PLAIN])
@pytest.mark.parametrize("format_", FORMATS, ids="-".join)
def test_logits_that_are_no_numbers_stay_in_their_head(format_, tactic, plain_build):
    case = Case(SMALL, format_)
    clean, _ = case.run(plain_build, tactic)
    head, query = 3, 7
    logit = case.offsets.stop + head * len(SMALL) * case.points + 5
    case.sampling[0, query, logit] = stored([np.nan], format_[1])[0]
    spoilt, _ = case.run(plain_build, tactic)
    channels = slice(head * case.depth, (head + 1) * case.depth)
    assert np.isnan(spoilt[0, query, channels]).all()
    spoilt[0, query, channels] = clean[0, query, channels]
    assert (spoilt == clean).all()


def test_half_precision_is_ten_times_better_than_locations_in_half(plain_build):
    """What every other plugin does: normalised locations, stored as the input is."""
    levels = ((5, 8), (10, 16), (20, 32))
    case = Case(levels, ("float16", "float16"))
    expected = case.expected()
    value, sampling = case.inputs()
    rounded = sampling.copy()
    sizes = np.array([(w, h) for h, w in levels])[:, None]  # [L, 1, 2]
    shape = (*sampling.shape[:2], case.heads, len(levels), case.points, 2)
    offsets = sampling[..., case.offsets].reshape(shape)
    centres = np.concatenate([reference.centre(*level) for level in levels])
    centres = centres[None, :, None, None, None]
    locations = (centres + offsets / sizes).astype(np.float16).astype(np.float64)
    rounded[..., case.offsets] = ((locations - centres) * sizes).reshape(*shape[:2], -1)
    others = reference.ms_deform_attn(value, rounded, levels, heads=8, points=4)
    ours, _ = case.run(plain_build, TILED)
    assert rms(ours - expected) * 10 < rms(others - expected)
    assert rms(ours - expected) < 1e-3 * rms(expected)


def rms(x):
    return np.sqrt(np.mean(np.square(x)))


def test_an_empty_batch_is_no_work(plain_build):
    actual, found = Case(SMALL, FORMATS[1], batch=0).run(plain_build, TILED)
    assert actual.shape == (0, 65, 256)
    assert found == ""


def test_an_unknown_tactic_is_refused(plain_build):
    with pytest.raises(AssertionError, match="CUDA error 1"):
        Case(SMALL, FORMATS[1]).run(plain_build, max(TACTICS) + 1)
