"""Whatever a verb raises becomes one sentence and the right exit code."""

import errno
import signal
import subprocess
import sys

import pytest
import typer
from typer.testing import CliRunner

from m2f import errors
from m2f.cli.options import Debug
from m2f.cli.terminal import reported, working


def program(problem):
    """A command line of one verb, which raises."""
    app = typer.Typer(pretty_exceptions_enable=False)

    @app.command()
    @reported
    def verb(debug: Debug = False):
        raise problem

    return app


@pytest.mark.parametrize(
    ("problem", "code", "text"),
    [
        (errors.UsageError("a and b differ"), 2, "m2f: a and b differ"),
        (errors.CheckFailed("c"), 1, "m2f: c"),
        (errors.MissingFile("d"), 3, "m2f: d"),
        (errors.DiskError("e [bold]not markup[/]"), 3, "m2f: e [bold]not markup[/]"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (MemoryError(), 3, "out of memory"),
        (ModuleNotFoundError("no", name="torch._C"), 3, "pip install 'm2f-deploy[export]'"),
        (
            OSError(errno.EACCES, "Permission denied", "f.bin"),
            3,
            "m2f: f.bin: Permission denied",
        ),
        (ValueError("first\nsecond"), 1, "unexpected ValueError: first; this is a bug"),
        (ModuleNotFoundError("no", name="surprise"), 1, "this is a bug"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else None,
)
def test_one_sentence_and_a_code(problem, code, text):
    result = CliRunner().invoke(program(problem))
    assert (result.exit_code, result.stdout) == (code, "")
    assert text in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_debug_shows_the_traceback_too():
    result = CliRunner().invoke(program(errors.UsageError("why")), ["--debug"])
    assert result.exit_code == 2
    assert "Traceback" in result.stderr
    assert result.stderr.endswith("m2f: why\n")


def test_notes_stay_and_progress_does_not(capsys):
    with working("starting") as progress:
        progress("reading")
        progress("note: something was assumed")
    out, err = capsys.readouterr()
    assert (out, err) == ("", "m2f: note: something was assumed\n")


def test_a_reader_that_leaves_is_no_error():
    command = f"{sys.executable} -m m2f doctor --json | head -c 1; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, check=False)
    # 0 where all of it fitted into the pipe before the reader left
    assert done.returncode in (0, 128 + signal.SIGPIPE)
    assert done.stderr == b""


def test_a_closed_pipe_is_quiet():
    code = (
        "import os, sys; r, w = os.pipe(); os.close(r); os.dup2(w, 1)\n"
        "from m2f.cli import main; sys.argv = ['m2f', 'doctor']; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], stderr=subprocess.PIPE, check=False)
    assert done.returncode == 128 + signal.SIGPIPE
    assert done.stderr == b""
