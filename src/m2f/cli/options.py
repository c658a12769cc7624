"""Options that several verbs share, and how their text is read."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from m2f.bundle import Range
from m2f.config import Task
from m2f.errors import UsageError

MAX_SIDE = 1 << 16


def size(text: str) -> tuple[int, int]:
    """Reads "512x1024" as height and width, "512" as a square."""
    match = re.fullmatch(r"\s*([0-9]{1,9})(?:\s*[xX*,]\s*([0-9]{1,9}))?\s*", text)
    if match is None:
        raise typer.BadParameter(f"{text!r} is not a size; write HEIGHTxWIDTH, e.g. 512x1024")
    height = int(match[1])
    width = int(match[2]) if match[2] else height
    if not (1 <= height <= MAX_SIDE and 1 <= width <= MAX_SIDE):
        raise typer.BadParameter(
            f"{text!r} is {height} by {width} pixels, each side must be from 1 to {MAX_SIDE}"
        )
    return height, width


def batch(text: str) -> Range:
    """Reads "4" as always four, "1:8" as from one to eight."""
    match = re.fullmatch(r"\s*([0-9]{1,6})(?:\s*(?::|\.\.)\s*([0-9]{1,6}))?\s*", text)
    if match is None:
        raise typer.BadParameter(f"{text!r} is not a batch; write a number or e.g. 1:8")
    least = int(match[1])
    try:
        return Range(min=least, max=int(match[2]) if match[2] else least)
    except UsageError as problem:
        raise typer.BadParameter(str(problem)) from problem


Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show a traceback with an error.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace an existing bundle.")]
Out = Annotated[Path, typer.Option("--out", "-o", help="Where to write.", show_default=False)]
Threads = Annotated[
    int | None,
    typer.Option("--threads", min=1, help="CPU cores to use; all unless given."),
]
TaskName = Annotated[
    Task | None,
    typer.Option(help="What to answer; the model's own task unless given."),
]
PresetName = Annotated[
    str | None,
    typer.Option(
        "--preset",
        help="The published model it is, e.g. coco-panoptic-r50; unless the file says so.",
    ),
]
