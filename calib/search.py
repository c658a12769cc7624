"""The fewest parts to keep from being quantised, so that no more is lost than allowed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from m2f.calib.sensitivity import Part
from m2f.errors import CheckFailed


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One choice that was judged.

    Attributes:
        kept: Parts that are not quantised.
        points: What it scored.
    """

    kept: tuple[str, ...]
    points: float

    def to_json(self) -> dict[str, Any]:
        """Ready for ``json.dump``."""
        return {"kept": list(self.kept), "points": self.points}


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """What the search came to.

    Attributes:
        kept: The parts that are not quantised, noisiest first.
        points: What it scored.
        ranking: All parts, the noisiest first; none where nothing had to be kept.
        trials: All that was judged, in order.
    """

    kept: tuple[Part, ...]
    points: float
    ranking: tuple[Part, ...]
    trials: tuple[Trial, ...]


def fewest(
    rank: Callable[[], Sequence[Part]],
    points: Callable[[Sequence[Part]], float],
    *,
    reference: float,
    max_drop: float,
    metric: str,
) -> Choice:
    """Finds how few of the noisiest parts need to be kept.

    First by bisection, the number of the noisiest to keep; then each of these is given up
    again, the least noisy first, if the limit holds without it. What is returned was judged
    and met the limit.

    Args:
        rank: Gives the parts, noisiest first; asked only if something has to be kept.
        points: Judges the network with these parts kept and all others quantised.
        reference: Points of float32.
        max_drop: Points that may be lost.
        metric: Of what, for messages.

    Raises:
        CheckFailed: Whatever is quantised loses more; says what was reached.
    """
    trials: list[Trial] = []

    def holds(kept: Sequence[Part]) -> bool:
        trials.append(Trial(kept=tuple(p.name for p in kept), points=points(kept)))
        return reference - trials[-1].points <= max_drop

    if holds(()):
        return Choice(kept=(), points=trials[0].points, ranking=(), trials=tuple(trials))
    ranking = tuple(rank())
    low, high = 0, len(ranking) - 1  # keeping all but the least noisy quantises one part
    if not high or not holds(ranking[:high]):
        best = max(trials, key=lambda trial: trial.points)
        raise CheckFailed(
            f"a drop of {max_drop:g} points of {metric} cannot be kept to: the best of "
            f"{len(trials)} choices, with {len(ranking) - len(best.kept)} of {len(ranking)} "
            f"parts quantised, loses {reference - best.points:.2f} ({reference:.2f} to "
            f"{best.points:.2f}); allow as much, or do not quantise"
        )
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(ranking[:middle]) else (middle, high)
    kept = list(ranking[:high])
    for part in reversed(ranking[: high - 1]):
        fewer = [other for other in kept if other is not part]
        if fewer and holds(fewer):
            kept = fewer
    names = tuple(part.name for part in kept)
    reached = next(trial.points for trial in trials if trial.kept == names)
    return Choice(kept=tuple(kept), points=reached, ranking=ranking, trials=tuple(trials))
