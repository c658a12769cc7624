import numpy as np
import pytest
import torch
from torch.nn import functional as F

from m2f.runtime import resample
from m2f.runtime.resample import Resampler, between, linear, nearest
from tests import tolerance

SIZES = [(1, 1), (1, 7), (7, 1), (64, 256), (64, 230), (5, 13), (37, 11), (256, 345), (8, 8)]


def planes(n, h, w):
    return np.random.default_rng(h * 1000 + w).normal(0, 5, (n, h, w)).astype(np.float32)


def torch_resized(x, size):
    tensor = torch.from_numpy(x)[None]
    return F.interpolate(tensor, size=size, mode="bilinear", align_corners=False)[0].numpy()


def bound(x, size):
    """Positions carry float32 rounding of the largest index; values change by their slope."""
    return tolerance.SAMPLE_POSITION * (max(*size, *x.shape[1:]) + 4) * np.ptp(x)


@pytest.mark.parametrize("source", SIZES)
@pytest.mark.parametrize("target", SIZES)
def test_one_resize_equals_torch(source, target):
    x = planes(3, *source)
    assert np.abs(between(source, target).resize(x) - torch_resized(x, target)).max() <= bound(
        x, target
    )


def test_two_resizes_composed_equal_torch_doing_both():
    x = planes(4, 64, 80)
    first = between((64, 80), (256, 320))
    cropped = Resampler(first.rows[:230], first.columns[:301])
    both = between((230, 301), (345, 222)).after(cropped)
    expected = torch_resized(torch_resized(x, (256, 320))[:, :230, :301], (345, 222))
    assert np.abs(both.resize(x) - expected).max() <= 2 * bound(x, (345, 320))
    # 4x up, then anything: never more than three neighbours
    assert both.rows.weight.shape[1] <= 3


def test_no_resize_changes_no_bit():
    x = planes(2, 20, 20)
    same = between((20, 20), (20, 20))
    assert np.array_equal(same.after(same).resize(x), x)


def test_rows_at_a_time_equal_all_rows(monkeypatch):
    x = planes(3, 21, 33)
    resampler = between((21, 33), (64, 50))
    whole = resampler.resize(x)
    monkeypatch.setattr(resample, "BLOCK_FLOATS", 3 * 50 * 9)
    parts = list(resampler.parts(3))
    assert len(parts) == 8  # 64 rows, 9 at a time
    for part in parts:
        window = resampler.rows.window(part)
        piece = resampler.resize(x[:, window], part, first_row=window.start)
        assert np.array_equal(piece, whole[:, part])


def test_extent_resizes_only_the_first_part_of_an_axis():
    x = planes(1, 16, 16)
    part = between((16, 16), (30, 31), extent=(8.0, 12.0)).resize(x)
    crop = np.ascontiguousarray(x[:, :8, :12])
    assert np.abs(part - torch_resized(crop, (30, 31))).max() <= bound(x, (30, 31))


def test_extent_may_end_within_an_element():
    ramp = np.arange(16, dtype=np.float32)[None, None].repeat(2, 1)
    values = between((2, 16), (2, 5), extent=(2.0, 12.5)).resize(ramp)[0, 0]
    assert np.allclose(values, [0.75, 3.25, 5.75, 8.25, 10.75])  # centres of fifths of 12.5


@pytest.mark.parametrize(("source", "target"), [(384, 345), (384, 1000), (3, 1), (1, 9)])
def test_nearest_equals_torch(source, target):
    x = torch.arange(source, dtype=torch.float32)[None, None]
    expected = F.interpolate(x, size=target, mode="nearest")[0, 0].numpy()
    assert np.array_equal(nearest(source, target), expected)


def test_weights_sum_to_one():
    taps = linear(64, 230).after(linear(16, 64))
    assert np.abs(taps.weight.sum(1) - 1).max() <= tolerance.SAMPLE_POSITION
