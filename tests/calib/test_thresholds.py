"""Each method against another implementation of it, on small data."""

import numpy as np
import pytest

from m2f.calib.histogram import Histogram
from m2f.calib.thresholds import LEVELS, METHODS, RangeRule
from m2f.errors import UsageError
from tests import tolerance

RNG = np.random.default_rng(5)
DATA = {
    "normal": RNG.normal(0, 2, 200_000),
    "rectified": np.maximum(RNG.normal(0, 1, 200_000), 0),
    "long_tails": RNG.laplace(0, 1, 200_000) ** 3,
    "uniform": RNG.uniform(-1, 1, 200_000),
    "one_outlier": np.append(RNG.normal(0, 1, 100_000), 40.0),
}
DATA = {name: values.astype(np.float32) for name, values in DATA.items()}

each = pytest.mark.parametrize("name", DATA)
scipy_stats = pytest.importorskip("scipy.stats")


def threshold(name, method, **options):
    histogram = Histogram()
    histogram.add(DATA[name])
    peak = float(np.abs(DATA[name]).max())
    return RangeRule(method=method, **options).threshold(histogram, peak)


@each
def test_minmax(name):
    assert threshold(name, "minmax") == np.abs(DATA[name]).max()


@each
@pytest.mark.parametrize("percent", [99.0, 99.99, 100.0])
def test_percentile_against_sorting(name, percent):
    size = np.sort(np.abs(DATA[name]))
    exact = size[int(np.ceil(len(size) * percent / 100)) - 1]
    bin_width = 2 ** np.ceil(np.log2(size[-1])) / 2**14
    found = threshold(name, "percentile", percentile=percent)
    assert exact <= found <= exact + 2 * bin_width


def squared_error(values, end):
    """Of the values themselves, not of bins."""
    step = end / LEVELS
    quantised = np.clip(np.rint(values / step), -LEVELS, LEVELS) * step
    return float(np.square(values - quantised).mean())


@each
def test_mse_against_quantising_the_values(name):
    """No threshold of a dense search is better, but for what bins and steps leave open."""
    values = DATA[name].astype(np.float64)
    found = threshold(name, "mse")
    peak = np.abs(values).max()
    errors = [squared_error(values, end) for end in np.linspace(peak / 40, peak, 400)]
    assert squared_error(values, found) <= min(errors) * tolerance.THRESHOLD_SEARCH


def divergence(bins, end):
    """Of one candidate, from the definition, value by value; SciPy's divergence."""
    reference = [*bins[: end - 1], sum(bins[end - 1 :])]
    level = [min(round((i + 0.5) / end * LEVELS), LEVELS) for i in range(end)]
    mass, used = [0.0] * (LEVELS + 1), [0] * (LEVELS + 1)
    for i in range(end):
        mass[level[i]] += bins[i]
        used[level[i]] += reference[i] > 0
    spread = [
        mass[k] / used[k] if r > 0 else 0.0 for k, r in zip(level, reference, strict=True)
    ]
    return scipy_stats.entropy(reference, spread)


@each
def test_entropy_against_the_definition(name):
    size = np.abs(DATA[name])
    top = 2.0 ** (np.floor(np.log2(size.max())) + 1)
    bins = np.histogram(size, 4096, (0, top))[0].astype(float)
    bins[0] = bins[1]
    last = int(np.ceil(size.max() / top * 4096))
    ends = np.unique(np.linspace(254, last, 256).round()).astype(int)
    best = min(ends, key=lambda end: divergence(list(bins), end))
    assert threshold(name, "entropy") == pytest.approx(min(best * top / 4096, size.max()))


@each
def test_no_method_clips_what_is_not_there(name):
    for method in METHODS:
        assert 0 < threshold(name, method) <= np.abs(DATA[name]).max()


def test_an_outlier_is_clipped():
    """One value in 100 thousand may not cost all others five of their seven bits."""
    for method in ("entropy", "percentile"):
        assert threshold("one_outlier", method) < 20


def test_a_dead_tensor_has_no_range():
    dead = Histogram()
    dead.add(np.zeros(10, np.float32))
    assert [RangeRule(method=method).threshold(dead, 0.0) for method in METHODS] == [0.0] * 4


def test_a_peak_that_the_sample_missed_counts_for_minmax_alone():
    seen = Histogram()
    seen.add(DATA["uniform"])
    assert RangeRule(method="minmax").threshold(seen, 5.0) == 5.0
    assert RangeRule(method="mse").threshold(seen, 5.0) <= 2.0


@pytest.mark.parametrize("options", [{"method": "median"}, {"percentile": 20.0}])
def test_rules_that_are_none(options):
    with pytest.raises(UsageError):
        RangeRule(**options)
