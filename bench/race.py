"""Contestants that take turns, each checked before its first time and after its last."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from m2f.bench.checks import Array, Check, Judge, Outputs
from m2f.bench.entries import Entry
from m2f.bench.report import Role, Timed, Untimed
from m2f.bench.timing import in_turns
from m2f.errors import CheckFailed


class Named(Protocol):
    """What a report names a contestant by, opened or not."""

    @property
    def name(self) -> str: ...

    @property
    def precision(self) -> str: ...


@dataclass(frozen=True)
class _Admitted:
    entry: Entry
    run: Callable[[], Outputs]
    judge: Judge
    check: Check


class Race:
    """Collects contestants, then times them.

    Args:
        image: uint8 [1, H, W, 3].
    """

    def __init__(self, image: Array) -> None:
        self.image = image
        self.untimed: list[Untimed] = []
        self._admitted: list[_Admitted] = []

    def admit(self, entry: Entry, judge: Judge) -> Outputs | None:
        """Runs a contestant once and lets it take part if its result is right.

        Args:
            entry: Another program that fails is noted as not timed; one of ours raises.
            judge: Compares a result with what is right.

        Returns:
            The result, or None if it may not take part.
        """
        try:
            run = entry.contestant.bind(self.image)
            outputs = run()
        except Exception as problem:  # another program's may be any
            if entry.role != "peer":
                raise
            self.leave_out(entry.contestant, entry.role, f"did not run: {first_line(problem)}")
            return None
        check = judge(outputs)
        if not self._is_right(entry, check):
            return None
        self._admitted.append(_Admitted(entry, run, judge, check))
        return outputs

    def leave_out(self, what: Named, role: Role, why: str, *, is_wrong: bool = False) -> None:
        """Notes why something has no time."""
        self.untimed.append(
            Untimed(
                name=what.name,
                role=role,
                precision=what.precision,
                why=why,
                is_wrong=is_wrong,
            )
        )

    def run(
        self, count: int, progress: Callable[[int, int], None]
    ) -> list[tuple[Entry, Timed]]:
        """Times all of them, ``count`` turns each; who is wrong at the end has no time."""
        runs = {i: one.run for i, one in enumerate(self._admitted)}
        times, last = in_turns(runs, count=count, progress=progress)
        results = []
        for i, one in enumerate(self._admitted):
            again = one.judge(last[i])
            if self._is_right(one.entry, again):
                contestant = one.entry.contestant
                timed = Timed(
                    name=contestant.name,
                    role=one.entry.role,
                    precision=contestant.precision,
                    check=max(one.check, again, key=lambda check: check.mask_error),
                    times=times[i],
                )
                results.append((one.entry, timed))
        return results

    def _is_right(self, entry: Entry, check: Check) -> bool:
        try:
            check.require(entry.name)
        except CheckFailed as problem:
            self.leave_out(entry.contestant, entry.role, str(problem), is_wrong=True)
            return False
        return True


def first_line(problem: Exception) -> str:
    """What an exception says, in short."""
    lines = str(problem).strip().splitlines()
    return lines[0][:300] if lines else type(problem).__name__
