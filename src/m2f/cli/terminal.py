"""How verbs talk: results to stdout, all else to stderr, one sentence for an error."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, ParamSpec

import typer

from m2f.errors import M2FError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from m2f.bundle import Parity

INTERRUPTED = 130
"""128 + SIGINT, the shell's convention."""

BROKEN_PIPE = 141
"""128 + SIGPIPE: whoever read the output has left."""

P = ParamSpec("P")


def reported(verb: Callable[P, None]) -> Callable[P, None]:
    """Turns what a verb raises into one sentence on stderr and an exit code."""

    @functools.wraps(verb)
    def run(*args: P.args, **options: P.kwargs) -> None:
        try:
            verb(*args, **options)
            sys.stdout.flush()
        except (typer.Exit, typer.Abort, typer.BadParameter):
            raise
        except BrokenPipeError:
            # The interpreter flushes stdout once more at exit, which must not fail again.
            with contextlib.suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(BROKEN_PIPE) from None
        except (Exception, KeyboardInterrupt) as problem:
            if options.get("debug"):
                traceback.print_exc()
            message, code = _explained(problem)
            say(f"m2f: {message}", style="bold red" if code != INTERRUPTED else "")
            raise typer.Exit(code) from None

    return run


def _explained(problem: BaseException) -> tuple[str, int]:
    """The sentence and exit code for an exception."""
    from m2f.doctor import install_hint

    if isinstance(problem, M2FError):
        return str(problem), problem.exit_code
    if isinstance(problem, KeyboardInterrupt):
        message = str(problem) or "interrupted; nothing unfinished was left behind"
        return message, INTERRUPTED
    if isinstance(problem, ModuleNotFoundError) and (hint := install_hint(problem.name or "")):
        return hint, 3
    if isinstance(problem, MemoryError):
        return "out of memory; use smaller images, a smaller batch or a smaller model", 3
    if isinstance(problem, OSError) and problem.filename is not None:
        return f"{problem.filename}: {problem.strerror}", 3
    return (
        f"unexpected {type(problem).__name__}: {_first_line(problem)}; this is a bug: please "
        "report it as an issue of this project, with what the same command prints with --debug",
        1,
    )


def _first_line(problem: BaseException) -> str:
    lines = str(problem).strip().splitlines()
    return lines[0].rstrip(".;") if lines else "(no message)"


def say(message: str, *, style: str = "") -> None:
    """Writes a message for people to stderr."""
    console = _console(stderr=True)
    console.print(message, style=style, markup=False, highlight=False, soft_wrap=True)


def show(what: str | Table) -> None:
    """Writes a result for people to stdout."""
    console = _console(stderr=False)
    if not console.is_terminal:
        # Rich would cut tables at 80 columns, which a file or a pipe does not have.
        console = _console(stderr=False, width=200)
    if isinstance(what, str):
        console.print(what, markup=False, highlight=False, soft_wrap=True)
    else:
        console.print(what)


def show_json(value: Any) -> None:
    """Writes a result for programs to stdout."""
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def table(*columns: str, title: str | None = None, numbers: tuple[int, ...] = ()) -> Table:
    """An empty table.

    Args:
        *columns: Headings.
        title: Stands above it.
        numbers: Which columns are aligned to the right.
    """
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    new = Table(title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD)
    for i, heading in enumerate(columns):
        new.add_column(heading, justify="right" if i in numbers else "left", overflow="fold")
    return new


def parity_in_words(parity: Parity | None) -> str:
    """How far an exported file is from PyTorch."""
    if parity is None:
        return "not compared"
    return (
        f"relative error {parity.class_error:.1e} of the classes and "
        f"{parity.mask_error:.1e} of the masks (limit {parity.limit:.0e}), "
        f"{parity.mask_pixels:.4%} of mask pixels differ"
    )


@contextlib.contextmanager
def working(message: str) -> Iterator[Callable[[str], None]]:
    """Shows what is being done while it lasts; only on a terminal.

    Yields:
        Replaces the message. A "note: ..." does not replace it but stays, terminal or not.
    """
    from rich.markup import escape

    console = _console(stderr=True)
    status = console.status(escape(message)) if console.is_terminal else None

    def update(text: str) -> None:
        if text.startswith("note: "):
            say(f"m2f: {text}")
        elif status is not None:
            status.update(escape(text))

    with status or contextlib.nullcontext():
        yield update


@contextlib.contextmanager
def counting(message: str) -> Iterator[Callable[[int, int, object], None]]:
    """Shows a bar while many things are done one by one; only on a terminal.

    Yields:
        To be called with a thing's number (from 1), their count, and the thing.
    """
    from rich.markup import escape
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
    from rich.progress import TimeRemainingColumn as Remaining

    console = _console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(
        *columns, Remaining(), console=console, transient=True, disable=not console.is_terminal
    ) as bar:
        row = bar.add_task(escape(message), total=None)

        def step(number: int, count: int, thing: object) -> None:
            bar.update(row, completed=number - 1, total=count, description=escape(f"{thing}"))

        yield step


def _console(*, stderr: bool, width: int | None = None) -> Console:
    from rich.console import Console

    class Quiet(Console):
        """Leaves a broken pipe to `reported`; Rich would end the process itself."""

        def on_broken_pipe(self) -> None:
            raise BrokenPipeError

    return Quiet(stderr=stderr, width=width)
