"""The command line: each verb parses, calls one public function, and prints what it gave.

Exit codes: 0 fine; 1 a check failed, or some of many images did; 2 the request or its input
is wrong; 3 something is missing (a file, a library, room on the disk); 130 interrupted.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from inspect import cleandoc
from types import FrameType
from typing import Annotated

import typer

from m2f.cli.bench import bench
from m2f.cli.build import build
from m2f.cli.calibrate import calibrate
from m2f.cli.check import check
from m2f.cli.compare import compare
from m2f.cli.convert import convert
from m2f.cli.demo import demo
from m2f.cli.doctor import doctor
from m2f.cli.evaluate import eval
from m2f.cli.export import export
from m2f.cli.finetune import finetune
from m2f.cli.inspect import inspect
from m2f.cli.run import run
from m2f.cli.scenes import scenes
from m2f.cli.train_sample import train_sample

app = typer.Typer(
    name="m2f",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["--help", "-h"]},
)


def _help(function: Callable[..., None]) -> str:
    """A docstring as Click takes it: a backspace character keeps a paragraph's line breaks."""
    return cleandoc(function.__doc__ or "").replace("\\b", "\b")


CONVERT = (export, convert, calibrate, build)
DEPLOY = (*CONVERT, run, check, eval, compare, bench, inspect, doctor, demo)
TRAIN = (scenes, finetune, train_sample)
for verb in DEPLOY + TRAIN:
    app.command(help=_help(verb))(verb)


def _version(wanted: bool) -> None:
    if wanted:
        from m2f import __version__

        typer.echo(f"m2f {__version__}")
        raise typer.Exit


def root(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    r"""Mask2Former from checkpoint to ONNX, with proof that the answer is still PyTorch's.

    \b
    m2f demo                                            see it work
    m2f export model_final_94dc52.pkl -o coco.m2f       checkpoint to bundle
    m2f run coco.m2f street.jpg -o pictures             bundle to segments
    """


app.callback(help=_help(root))(root)


def main() -> None:
    """The entry point of the `m2f` command."""
    # As Ctrl-C does, a polite kill unwinds the stack, so that nothing unfinished is left.
    signal.signal(signal.SIGTERM, _terminate)
    app(prog_name="m2f")


def _terminate(number: int, _frame: FrameType | None) -> None:
    raise SystemExit(128 + number)
