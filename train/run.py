"""A training run from its first step to its last, over as many interruptions as it takes."""

import contextlib
import fcntl
import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from m2f.bundle import disk_errors
from m2f.errors import UsageError
from m2f.train.curve import draw_curve
from m2f.train.trainer import CHECKPOINT, CURVE, Trainer

Progress = Callable[[int, int, object], None]
"""Told the number of the step to come (from 1), their count, and how it goes, in words."""

PICTURE = "curve.png"

SAVE_EVERY_S = 120.0
"""Seconds of work that a crash may cost."""


class Losses(NamedTuple):
    """Mean loss of the first and of the last tenth of a run's steps, 100 at most."""

    first: float
    last: float


def use_threads(threads: int | None) -> None:
    """Limits PyTorch, in this process, to so many cores; None: as it is.

    Sums depend on it in their last digits, so a run is the same to the bit only with as many.
    """
    if threads is not None:
        torch.set_num_threads(threads)


@contextlib.contextmanager
def held(folder: Path, out: Path, *, resume: bool) -> Iterator[None]:
    """Keeps a run's folder from other processes, after looking that it can end well.

    Args:
        folder: Of the checkpoint and the curve; made if it does not exist.
        out: Where the model will be written.
        resume: Whether to go on with what is in the folder.

    Raises:
        UsageError: The folder holds a run that is not to be resumed, or is in use; or the
            model cannot be written to ``out``.
        DiskError: The folder cannot be written to.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"{out}: exists and is not empty; choose another name")
    if out.resolve() in (folder.resolve(), *folder.resolve().parents):
        raise UsageError(f"{folder}: the run cannot be kept in {out}, where the model will be")
    if (folder / CHECKPOINT).exists() and not resume:
        raise UsageError(
            f"{folder}: holds a training run already; pass --resume to go on with it, or name "
            "another folder"
        )
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder, os.O_RDONLY)
    try:
        _lock(handle, folder)
        try:
            yield
        finally:
            with contextlib.suppress(OSError):  # goes only if nothing was worth keeping
                folder.rmdir()
    finally:
        os.close(handle)


def _lock(handle: int, folder: Path) -> None:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as problem:
        raise UsageError(
            f"{folder}: another process is training there; wait for it or name another folder"
        ) from problem


def follow(
    trainer: Trainer, *, progress: Progress | None = None, save_every_s: float = SAVE_EVERY_S
) -> Losses:
    """Trains to the end, saving now and then; draws the loss curve.

    The first Ctrl-C, or a polite kill, ends the run after the step at work, which is kept.

    Args:
        trainer: Fresh or resumed.
        progress: Called before each step.
        save_every_s: Seconds between checkpoints.

    Raises:
        KeyboardInterrupt: After Ctrl-C; says how far the run is.
        CheckFailed: The loss is not a number any more.
        DiskError: The run cannot be kept.
    """
    steps, words = trainer.recipe.steps, "training"
    saved = time.monotonic()
    with stop_signals() as stopped_by:
        if progress is not None:
            progress(trainer.step + 1, steps, words)
        smooth = None
        for record in trainer.run(save_every=steps):
            loss = record["loss"]
            smooth = loss if smooth is None else 0.95 * smooth + 0.05 * loss
            words = f"loss {smooth:.2f}, rate {record['rate']:.1e}, {record['seconds']:.2f} s"
            if progress is not None:
                progress(trainer.step + 1, steps, words)
            if stopped_by():
                break
            if time.monotonic() - saved > save_every_s:
                trainer.save()
                saved = time.monotonic()
        if trainer.step < steps:
            trainer.save()
        records = read_curve(trainer.folder / CURVE)
        draw_curve(records, trainer.folder / PICTURE)
    if number := stopped_by():
        if number == signal.SIGINT:
            raise KeyboardInterrupt(
                f"interrupted after step {trainer.step} of {steps}, which is kept in "
                f"{trainer.folder}; the same command with --resume goes on"
            )
        raise SystemExit(128 + number)
    return losses(records)


def losses(records: Sequence[Mapping[str, Any]]) -> Losses:
    """Sums a curve up."""
    values = [record["loss"] for record in records]
    tenth = min(max(len(values) // 10, 1), 100)
    first, last = (sum(some) / tenth for some in (values[:tenth], values[-tenth:]))
    return Losses(round(first, 4), round(last, 4))


def read_curve(path: Path) -> list[dict[str, Any]]:
    """The records of all steps so far."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@contextlib.contextmanager
def stop_signals() -> Iterator[Callable[[], int]]:
    """Puts SIGINT and SIGTERM off, so that a step is not torn apart; the second one acts.

    Yields:
        Gives the number of the signal that came, 0 if none did.
    """
    came: list[int] = []
    before: dict[int, Any] = {}

    def note(number: int, _frame: object) -> None:
        came.append(number)
        signal.signal(number, before[number])

    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            handler = signal.getsignal(number)
            if handler not in (signal.SIG_IGN, None):
                before[number] = handler
                signal.signal(number, note)
    try:
        yield lambda: came[0] if came else 0
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)
