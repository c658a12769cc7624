"""The search for the fewest parts to keep, against trying every choice."""

import itertools

import pytest

from m2f.calib.search import fewest
from m2f.calib.sensitivity import Part, decibels
from m2f.errors import CheckFailed


def parts(*costs):
    """Parts that lose so many points each, ranked."""
    made = [
        Part(name=f"{i}", layers=(f"{i}.a", f"{i}.b"), masks_db=30.0 - cost, classes_db=40.0)
        for i, cost in enumerate(costs)
    ]
    return sorted(made, key=lambda part: -part.noise)


def search(costs, max_drop):
    def points(kept):
        names = {part.name for part in kept}
        return 100.0 - sum(cost for i, cost in enumerate(costs) if str(i) not in names)

    return fewest(
        lambda: parts(*costs), points, reference=100.0, max_drop=max_drop, metric="PQ"
    )


@pytest.mark.parametrize("costs", [(5, 1, 3, 2, 4), (0.1,) * 7, (9, 0, 0, 0, 0, 0, 0, 0)])
@pytest.mark.parametrize("max_drop", [0.0, 0.25, 1.0, 3.0, 7.5, 50.0])
def test_it_keeps_as_few_as_possible(costs, max_drop):
    least = next(
        size
        for size in range(len(costs) + 1)
        for kept in itertools.combinations(range(len(costs)), size)
        if sum(costs) - sum(costs[i] for i in kept) <= max_drop + 1e-9
    )
    if least == len(costs):
        with pytest.raises(CheckFailed, match="cannot be kept to"):
            search(costs, max_drop)
        return
    choice = search(costs, max_drop)
    assert len(choice.kept) == least
    assert 100 - choice.points <= max_drop + 1e-9
    assert choice.trials[0].kept == ()
    assert len(choice.trials) <= 3 + len(costs)
    assert bool(choice.ranking) == bool(choice.kept)


def test_what_was_reached_is_said():
    with pytest.raises(
        CheckFailed, match=r"with 1 of 3 parts quantised, loses 1\.00"
    ) as caught:
        search((3, 2, 1), 0.5)
    assert "100.00 to 99.00" in str(caught.value)


def test_a_part_that_the_ranking_put_too_high_is_given_up():
    """The metric need not agree with the noise: what costs nothing is quantised after all."""
    ranked = parts(9, 8, 7, 0, 0, 0)  # by noise; but only the third costs points
    choice = fewest(
        lambda: ranked,
        lambda kept: 100.0 if any(part.name == "2" for part in kept) else 90.0,
        reference=100.0,
        max_drop=1.0,
        metric="PQ",
    )
    assert [part.name for part in choice.kept] == ["2"]


@pytest.mark.parametrize(
    ("power", "noise", "expected"),
    [
        (1, 0.01, 20),
        (1, 1, 0),
        (1, 0, 150),
        (0, 0, 150),
        (1, 1e-30, 150),
        (1, float("nan"), -150),
    ],
)
def test_decibels(power, noise, expected):
    assert decibels(power, noise) == pytest.approx(expected)
