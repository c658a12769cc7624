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


def span(text: str) -> tuple[float, float]:
    """Reads "0.1:2.0" as from the one to the other, "1" as always that."""
    number = r"([0-9]{1,6}(?:\.[0-9]{1,6})?)"
    match = re.fullmatch(rf"\s*{number}(?:\s*:\s*{number})?\s*", text)
    if match is None:
        raise typer.BadParameter(f"{text!r} is no range; write LEAST:MOST, e.g. 0.1:2.0")
    return float(match[1]), float(match[2] or match[1])


Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show a traceback with an error.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace an existing bundle.")]
Out = Annotated[Path, typer.Option("--out", "-o", help="Where to write.", show_default=False)]
Size = Annotated[
    str | None,
    typer.Option("--size", metavar="HxW", help="Height and width of the image, pixels."),
]
Threads = Annotated[
    int | None,
    typer.Option("--threads", min=1, help="CPU cores to use; all unless given."),
]
BackendName = Annotated[
    str | None,
    typer.Option(
        "--backend",
        help="onnxruntime, onnxruntime-tensorrt, or an engine: tensorrt, tensorrt-rtx. With a "
        "GPU the bundle's engine if it has one, else onnxruntime.",
    ),
]
DeviceName = Annotated[
    str | None,
    typer.Option("--device", help="cpu, cuda, or e.g. cuda:1; the CPU unless given."),
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
Data = Annotated[
    Path,
    typer.Option(
        "--data",
        help="COCO's annotation file (panoptic or instances), a folder of label images, or "
        "a folder that holds either beside its images.",
        show_default=False,
    ),
]
Images = Annotated[
    Path | None,
    typer.Option("--images", help="Folder of the images; found beside the annotations."),
]
RangeImages = Annotated[
    list[Path] | None,
    typer.Option(
        "--images",
        help="Images like those the model is to see: files, folders, patterns. What would "
        "overflow on them stays in fp32.",
    ),
]
Segments = Annotated[
    Path | None,
    typer.Option("--segments", help="Folder of panoptic PNGs; named as the file."),
]
Labels = Annotated[
    str | None,
    typer.Option(
        "--labels",
        help="What values of label images mean: ade20k, ade20k-reduced, "
        "cityscapes-trainids, cityscapes-labelids, mapillary, the model's ids or indices, "
        "or a JSON file with categories.",
    ),
]
Ignore = Annotated[
    int | None,
    typer.Option("--ignore", help="Value of label images that counts as unlabelled."),
]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with a run that stopped.")]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Of all that is left to chance.")]
