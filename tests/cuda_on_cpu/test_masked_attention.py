"""MaskedAttention's CUDA kernels on the CPU, against the definition in float64."""

import ctypes
import re

import numpy as np
import pytest

from tests import tolerance
from tests.cuda_on_cpu.build import ROOT, Order, needs_compiler, output
from tests.ops import reference
from tests.ops.native import STORAGE, loaded, stored
from tests.ops.test_masked_attention import MASKS

pytestmark = needs_compiler

SOURCES = ("plugins/ops/masked_attention/cuda.cu", "tests/cuda_on_cpu/masked_attention.cc")
FLOATS = ("float32", "float16", "bfloat16")

# name -> (N, Q, S, M, D). Heads of 32 channels go to tensor cores, where tiles are 16 queries
# by 64 keys and a part has at most 16 of them.
CASES = {
    "one_of_each": (1, 1, 1, 1, 1),
    "one_key": (1, 3, 1, 2, 32),
    "primes": (2, 7, 67, 3, 17),
    "a_tile": (1, 16, 64, 1, 32),
    "a_query_and_a_key_more": (1, 17, 65, 2, 32),
    "a_key_less": (2, 5, 63, 2, 32),
    "two_blocks_of_queries": (1, 131, 130, 2, 32),
    "wide_heads": (1, 6, 70, 1, 136),
    "three_warps_five_tiles": (1, 33, 300, 1, 32),
    "several_parts": (1, 20, 1096, 1, 32),
}
CHECKED = ("one_of_each", "primes", "a_query_and_a_key_more", "three_warps_five_tiles")


def synchronising_lines():
    """(file, line) of each barrier and wait in the sources, and its text."""
    for source in sorted((ROOT / "plugins/ops/masked_attention").glob("cuda*.cu*")):
        for number, text in enumerate(source.read_text().splitlines(), 1):
            if "__syncthreads" in text or "cp_async_wait" in text:
                yield (source.name, number), f"{source.name}: {text.strip()}"


SYNCHRONISES = dict(synchronising_lines())


@pytest.fixture(scope="module")
def plain(kernels):
    return kernels(*SOURCES, checked=False)


@pytest.fixture(scope="module")
def checked(kernels):
    return kernels(*SOURCES, checked=True)


class Case:
    """One call: sizes, and inputs as they are stored."""

    def __init__(self, sizes, mask="mixed", storage="float32", seed=0, scale=1.0):
        n, q, s, m, d = self.sizes = sizes
        rng = np.random.default_rng(seed)
        self.storage = storage
        arrays = [scale * rng.standard_normal((n, rows, m * d)) for rows in (q, s, s)]
        arrays.append(MASKS[mask](rng, (n, q, s)))
        self.inputs = [stored(np.asarray(x, np.float32), storage) for x in arrays]

    def run(self, library, order=Order.FORWARD, tactic=0):
        """The output as it is stored, after a run without findings."""
        sizes = (ctypes.c_int64 * 5)(*self.sizes)
        size = library.library.masked_attention_workspace
        size.restype = ctypes.c_int64
        workspace = output(size(sizes), np.uint8)
        result = output(self.inputs[0].shape, self.inputs[0].dtype)
        code = STORAGE[self.storage]
        arguments = (sizes, code, tactic, *self.inputs, result, workspace)
        found = library.call("masked_attention", *arguments, order=order)
        assert found == "", found
        return np.asarray(result)

    def error(self, actual):
        """Largest error, and its bound; NaN where the output has one."""
        inputs = [loaded(x, self.storage) for x in self.inputs]
        heads = self.sizes[3]
        expected = reference.masked_attention(*inputs, heads=heads)
        bound = tolerance.attention(*inputs[:3], heads)
        if self.storage != "float32":
            bound += tolerance.rounded_weights(*inputs[1:3], self.storage)
        bound = tolerance.stored(bound, expected, self.storage)
        return abs(loaded(actual, self.storage) - expected).max(), bound


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("name", CASES)
def test_matches_the_definition(name, mask, plain):
    for storage in FLOATS:
        case = Case(CASES[name], mask, storage)
        error, bound = case.error(case.run(plain))
        assert error <= bound, storage


@pytest.mark.parametrize("tactic", [1, 2, 3])
@pytest.mark.parametrize("storage", FLOATS)
def test_every_way_to_cut_the_keys(tactic, storage, plain):
    """Parts of 4, 8 and 16 tiles, the last of them short."""
    case = Case((1, 20, 1096, 2, 32), "blocks", storage)
    error, bound = case.error(case.run(plain, tactic=tactic))
    assert error <= bound


@pytest.mark.parametrize("storage", FLOATS)
@pytest.mark.parametrize("depth", [8, 32])
def test_large_scores_do_not_overflow(storage, depth, plain):
    case = Case((1, 9, 300, 2, depth), storage=storage, scale=30.0)
    error, bound = case.error(case.run(plain, tactic=1))
    assert error <= bound


@pytest.mark.parametrize("storage", FLOATS)
def test_a_mask_that_is_no_number_is_seen(storage, plain):
    case = Case((1, 3, 72, 2, 32), "one_position", storage)
    mask = loaded(case.inputs[3], storage)
    case.inputs[3] = stored(np.where(mask > 0, mask, np.nan), storage)
    spoilt = case.run(plain)
    case.inputs[3] = stored(np.ones_like(mask), storage)
    assert (spoilt == case.run(plain)).all()


@pytest.mark.parametrize("storage", FLOATS)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_queries_that_are_no_numbers_stay_alone(bad, storage, plain):
    case = Case((1, 20, 130, 2, 32), storage=storage)
    clean = loaded(case.run(plain), storage)
    query = loaded(case.inputs[0], storage)
    query[0, 7] = bad
    case.inputs[0] = stored(query, storage)
    spoilt = loaded(case.run(plain), storage)
    assert np.isnan(spoilt[0, 7]).all()
    spoilt[0, 7] = clean[0, 7]
    assert (spoilt == clean).all()


def test_keys_nobody_sees_may_hold_anything(plain):
    """Tiles that all queries have hidden are never read, k and v past the last key neither."""
    case = Case((1, 20, 200, 1, 32), "nothing_hidden", "float16")
    case.inputs[3][..., 64:128] = -1
    clean = case.run(plain)
    for x in case.inputs[1:3]:
        x[:, 64:128] = np.nan
    assert (case.run(plain) == clean).all()


@pytest.mark.parametrize("storage", ["float16", "bfloat16"])
def test_a_tile_is_skipped_by_those_16_queries_that_have_hidden_it(storage, plain):
    case = Case((1, 32, 192, 1, 32), "nothing_hidden", storage)
    mask = loaded(case.inputs[3], storage)
    mask[:, :16, 64:128] = -1
    case.inputs[3] = stored(mask, storage)
    value = loaded(case.inputs[2], storage)
    value[:, 64:128] = np.nan  # a weight of 0 times this would show
    case.inputs[2] = stored(value, storage)
    is_nan = np.isnan(loaded(case.run(plain), storage)).all(-1)
    assert (is_nan[0] == (np.arange(32) >= 16)).all()


@pytest.mark.parametrize("storage", FLOATS)
@pytest.mark.parametrize(("n", "q", "s"), [(0, 3, 5), (2, 0, 5), (2, 3, 0)])
def test_empty_axes_are_no_work(n, q, s, storage, plain):
    output = Case((n, q, s, 2, 32), "nothing_hidden", storage).run(plain)
    assert output.shape == (n, q, 64)
    assert not output.any()


def test_random_shapes(plain):
    rng = np.random.default_rng(1)
    for seed in range(24):
        n, q, s, m = (int(x) for x in rng.integers(1, (3, 40, 260, 3)))
        sizes = (n, q, s, m, int(rng.choice([32, 32, rng.integers(1, 40)])))
        mask = list(MASKS)[seed % len(MASKS)]
        case = Case(sizes, mask, FLOATS[seed % 3], seed)
        error, bound = case.error(case.run(plain, tactic=seed % 4))
        assert error <= bound, (sizes, mask)


@pytest.mark.parametrize("order", Order, ids=lambda order: order.name.lower())
@pytest.mark.parametrize("storage", FLOATS)
@pytest.mark.parametrize("name", CHECKED)
def test_touches_nothing_it_should_not(name, storage, order, checked):
    """In the checked build: no race, no read of what nobody wrote, nothing out of bounds."""
    case = Case(CASES[name], "blocks", storage)
    error, bound = case.error(case.run(checked, order, tactic=1))
    assert error <= bound


@pytest.mark.parametrize("line", SYNCHRONISES, ids=SYNCHRONISES.get)
def test_every_barrier_and_wait_is_needed(line, checked):
    """Without any one of them something is reported, or the vote it takes is wrong."""
    case = Case((1, 33, 300, 1, 32), "mixed", "float16")
    error, bound = case.error(case.run(checked, tactic=1))
    assert error <= bound
    checked.leave_out(*line)
    try:
        error, bound = case.error(case.run(checked, tactic=1))
    except AssertionError as finding:
        assert re.search(r"race|nobody has written|waited for", str(finding))  # noqa: PT017
    else:
        assert error > bound
    finally:
        checked.leave_out("", 0)


@pytest.mark.parametrize("storage", ["float16", "bfloat16"])
def test_matrices_come_from_shared_memory_without_bank_conflicts(storage, plain):
    plain.take_conflicts()
    Case((1, 33, 300, 1, 32), "nothing_hidden", storage).run(plain, tactic=1)
    assert plain.take_conflicts() == 0
