"""The emulator's arithmetic against exact rationals, and its layouts against PTX's manual."""

from fractions import Fraction

import numpy as np
import pytest

from tests import tolerance
from tests.cuda_on_cpu.build import needs_compiler, output
from tests.ops.native import loaded, stored

pytestmark = needs_compiler

# storage -> (bits after the leading one, exponent of the smallest normal number)
FORMATS = {"float16": (10, -14), "bfloat16": (7, -126)}
SHORT = {"float16": "half", "bfloat16": "bfloat16"}


@pytest.fixture(scope="module")
def library(kernels):
    return kernels("tests/cuda_on_cpu/arithmetic.cu", checked=True)


def rounded(exact, storage):
    """A rational to the nearest number of a format, ties to even; not for overflows."""
    bits, smallest = FORMATS[storage]
    if exact == 0:
        return 0.0
    exponent = smallest
    while abs(exact) >= Fraction(2) ** (exponent + 1):
        exponent += 1
    step = Fraction(2) ** (exponent - bits)
    return float(round(exact / step) * step)  # round() takes ties to even


@pytest.mark.parametrize("storage", FORMATS)
def test_every_operation_rounds_once(storage, library):
    rng = np.random.default_rng(0)
    count = 512
    a, b, c = (
        stored(rng.standard_normal(2 * count) * 2.0 ** rng.integers(-9, 5, 2 * count), storage)
        for _ in range(3)
    )
    # Sums that tie, or that only a bit far below decides.
    a[:4], b[:4] = stored([1.0, 1.0, 3.0, 1.0], storage), stored([1.0] * 4, storage)
    half_step = 2.0 ** -(FORMATS[storage][0] + 1)
    c[:4] = stored([half_step, -half_step / 2, half_step, half_step * 1.5], storage)
    out = output(8 * count, a.dtype)
    found = library.call(f"{SHORT[storage]}_pairs", a, b, c, out, count)
    assert found == ""
    actual = loaded(out.view(np.ndarray), storage).reshape(4, -1)
    numbers = [[Fraction(float(x)) for x in loaded(y, storage)] for y in (a, b, c)]
    for i, (x, y, z) in enumerate(zip(*numbers, strict=True)):
        exact = (x + y, x - y, x * y, x * y + z)
        assert [rounded(e, storage) for e in exact] == actual[:, i].tolist(), (x, y, z)


def fragments_a(matrix):
    """A [16, 16] as 32 lanes hold it; PTX ISA, "Matrix fragments for mma.m16n8k16"."""
    out = np.empty((32, 8), matrix.dtype)
    for lane in range(32):
        group, thread = divmod(lane, 4)
        for i in range(8):
            row = group if i < 2 or 4 <= i < 6 else group + 8
            column = thread * 2 + (i & 1) + (8 if i >= 4 else 0)
            out[lane, i] = matrix[row, column]
    return out


def fragments_b(matrix):
    """B [16, 8] as 32 lanes hold it."""
    out = np.empty((32, 4), matrix.dtype)
    for lane in range(32):
        group, thread = divmod(lane, 4)
        for i in range(4):
            out[lane, i] = matrix[thread * 2 + (i & 1) + (8 if i >= 2 else 0), group]
    return out


def fragments_d(matrix):
    """C and D [16, 8] as 32 lanes hold them."""
    out = np.empty((32, 4), matrix.dtype)
    for lane in range(32):
        group, thread = divmod(lane, 4)
        for i in range(4):
            out[lane, i] = matrix[group if i < 2 else group + 8, thread * 2 + (i & 1)]
    return out


@pytest.mark.parametrize("storage", FORMATS)
def test_tensor_cores_multiply_matrices(storage, library):
    rng = np.random.default_rng(0)
    for spread in (0, 6):  # products of one size, and of sizes that lose bits when aligned
        a, b = (
            stored(
                rng.standard_normal(s) * 2.0 ** rng.integers(-spread, spread + 1, s), storage
            )
            for s in ((16, 16), (16, 8))
        )
        c = rng.standard_normal((16, 8)).astype(np.float32)
        d = fragments_d(c)
        packed = (fragments_a(a).view(np.uint32), fragments_b(b).view(np.uint32))
        assert library.call(f"{SHORT[storage]}_product", *packed, d) == ""
        exact = loaded(a, storage) @ loaded(b, storage) + c
        largest = np.abs(loaded(a, storage)[:, :, None] * loaded(b, storage)[None]).max(1)
        bound = tolerance.tensor_core(np.maximum(largest, abs(c)))
        assert (abs(d - fragments_d(exact)) <= fragments_d(bound)).all()


def test_small_integers_multiply_exactly(library):
    rng = np.random.default_rng(0)
    a, b = (rng.integers(-8, 9, s).astype(np.float16) for s in ((16, 16), (16, 8)))
    d = np.zeros((32, 4), np.float32)
    library.call("half_product", fragments_a(a).view("u4"), fragments_b(b).view("u4"), d)
    assert (d == fragments_d(a.astype(float) @ b.astype(float))).all()


@pytest.mark.parametrize(("stride", "conflicts"), [(1, 0), (2, 1), (4, 3), (5, 0), (8, 7)])
def test_matrices_are_loaded_as_they_are_and_transposed(stride, conflicts, library):
    rows = np.arange(4 * 8 * 8, dtype=np.uint16)
    out = output((2, 32, 4), np.uint32)
    library.take_conflicts()
    assert library.call("load_matrices", rows, out, stride) == ""
    assert library.take_conflicts() == 2 * 4 * conflicts  # two loads of four matrices
    pairs = out.view(np.ndarray).view(np.uint16).reshape(2, 32, 4, 2)
    matrices = rows.reshape(4, 8, 8)
    for lane in range(32):
        row, column = lane // 4, lane % 4 * 2
        for i in (0, 1):
            assert (pairs[0, lane, :, i] == matrices[:, row, column + i]).all()
            assert (pairs[1, lane, :, i] == matrices[:, column + i, row]).all()


def test_lanes_get_what_cuda_says(library):
    out = output((8, 32), np.int32)
    assert library.call("warp_collectives", out) == ""
    lanes = np.arange(32)
    expected = [
        100 + lanes // 8 * 8 + 5,
        100 + (lanes ^ 17),
        100 + np.where(lanes % 16 >= 3, lanes - 3, lanes),
        100 + np.where(lanes % 16 < 13, lanes + 3, lanes),
        np.full(32, sum(1 << i for i in range(0, 32, 3))),
        np.ones(32),
        np.zeros(32),
        100 + np.where(lanes < 16, lanes, lanes - 16),  # an earlier segment may be read
    ]
    assert (out == np.stack(expected)).all()


def test_integers_are_exact(library):
    rng = np.random.default_rng(0)
    x, y = (rng.integers(0, 2**32, 64, dtype=np.uint32) for _ in range(2))
    out = output((3, 64), np.int32)
    assert library.call("integer_dots", x, y, out, 64) == ""
    weights = x.view(np.uint16).reshape(-1, 2).astype(np.int64)
    bytes_x, bytes_y = (z.view(np.uint8).reshape(-1, 4) for z in (x, y))
    signed = y.view(np.int8).reshape(-1, 4).astype(np.int64)
    assert (out[0] == 7 + (weights * signed[:, :2]).sum(1)).all()
    assert (out[1] == 7 + (weights * signed[:, 2:]).sum(1)).all()
    picked = np.stack([bytes_x[:, 0], bytes_y[:, 0], bytes_x[:, 1], bytes_y[:, 1]], 1)
    assert (out[2].view(np.uint32) == np.ascontiguousarray(picked).view(np.uint32)[:, 0]).all()
