"""Histograms that grow by doubling: the same counts in whatever order values come."""

import numpy as np
import pytest

from m2f.calib.histogram import BINS, Histogram


def histogram(*parts):
    made = Histogram()
    for part in parts:
        made.add(np.asarray(part, np.float32))
    return made


def test_it_counts_what_numpy_counts():
    values = np.random.default_rng(0).normal(0, 3, 50_000).astype(np.float32)
    made = histogram(values)
    assert made.range == 16.0  # the power of two above the peak, 13.1
    expected, _ = np.histogram(np.abs(values), BINS, (0, 16))
    assert np.array_equal(made.counts, expected)


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
def test_order_does_not_matter(scale):
    rng = np.random.default_rng(1)
    parts = [rng.normal(0, scale * 4.0**k, 1000) for k in (0, 3, -2, 9, 1)]
    forwards, backwards = histogram(*parts), histogram(*parts[::-1])
    assert forwards.exponent == backwards.exponent
    assert np.array_equal(forwards.counts, backwards.counts)
    assert forwards.counts.sum() == 5000


def test_a_peak_far_beyond_all_else_leaves_nothing_uncounted():
    made = histogram([1e-20] * 7, [1e20], [0.0, 3.0])
    assert made.counts.sum() == 10
    assert made.counts[0] == 9
    assert np.flatnonzero(made.counts)[1] == int(1e20 / made.range * BINS)


def test_a_power_of_two_lies_inside():
    made = histogram([4.0, -4.0])
    assert made.range == 8.0
    assert made.counts[BINS // 2] == 2


def test_zeros_alone_have_no_range():
    made = histogram(np.zeros(5), [])
    assert made.range == 0.0
    assert made.counts[0] == 5
    made.add(np.float32([1.0]))
    assert (made.range, made.counts[0]) == (2.0, 5)
