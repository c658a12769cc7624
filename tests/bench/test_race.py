"""Who is wrong gets no time."""

import functools

import numpy as np
import pytest

from m2f.bench.checks import LIMITS, checked
from m2f.bench.race import Race
from m2f.bench.timing import Times, in_turns
from tests.bench.fakes import OUTPUTS, entry

IMAGE = np.zeros((1, 32, 32, 3), np.uint8)
JUDGE = functools.partial(checked, reference=OUTPUTS, against="PyTorch", precision="fp32")


def nothing(turn, turns):
    """No progress is shown."""


def race(*entries, count=4):
    new = Race(IMAGE)
    for one in entries:
        new.admit(one, JUDGE)
    return new, [timed.name for _, timed in new.run(count, nothing)]


def test_a_right_one_is_timed():
    new, names = race(entry("right"))
    assert (names, new.untimed) == (["right"], [])


@pytest.mark.parametrize("until", [1, 2, 6], ids=["first run", "warm-up", "last run"])
def test_a_wrong_one_is_not(until):
    """Whether it is wrong from the start or becomes so while it is timed."""
    new, names = race(entry("right"), entry("wrong", until=until))
    assert names == ["right"]
    (left_out,) = new.untimed
    assert (left_out.name, left_out.is_wrong) == ("wrong", True)
    assert "the masks by 1.0e+00, where 1e-03 is allowed" in left_out.why


def test_one_that_fails_is_named_with_its_reason():
    new, names = race(entry("right"), entry("broken", fails=True))
    assert names == ["right"]
    assert new.untimed[0].why == "did not run: no such kernel"
    assert not new.untimed[0].is_wrong


def test_one_of_ours_that_fails_is_a_bug():
    with pytest.raises(RuntimeError):
        race(entry("broken", fails=True, role="bundle"))


def test_check_sees_what_is_wrong():
    classes, masks = OUTPUTS
    nan = np.where(masks == 3, np.nan, masks)
    assert JUDGE(OUTPUTS).passed
    assert not JUDGE((classes, nan)).passed
    assert not JUDGE((classes[:, :1], masks)).passed
    assert not JUDGE((-classes, masks)).passed
    # Relative L2 of adding e everywhere: e * sqrt(8) / sqrt(0 + 1 + 4 + ... + 49).
    found = JUDGE((classes, masks + 0.01))
    assert found.mask_error == pytest.approx(0.01 * (8 / 140) ** 0.5, rel=1e-3)
    assert found.passed == (found.mask_error <= LIMITS["fp32"])


def test_all_take_turns():
    order = []
    runs = {name: lambda name=name: order.append(name) for name in "ab"}
    turns = []
    times, _ = in_turns(
        runs, count=2, warm_up=1, progress=lambda turn, of: turns.append((turn, of))
    )
    assert order == list("ababab")
    assert turns == [(1, 3), (2, 3), (3, 3)]
    assert {name: len(t.ms) for name, t in times.items()} == {"a": 2, "b": 2}


def test_medians_and_quartiles():
    times = Times((5.0, 1.0, 4.0, 2.0, 3.0))
    assert (times.median, times.quartiles) == (3.0, (2.0, 4.0))
