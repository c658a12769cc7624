"""`m2f check`."""

from __future__ import annotations

from typing import Annotated

import typer

from m2f.cli import options
from m2f.cli.terminal import reported, show, show_json, working

Artefact = Annotated[str, typer.Argument(help="A checkpoint or a bundle.", show_default=False)]


@reported
def check(
    a: Artefact,
    b: Artefact,
    images: Annotated[
        list[str],
        typer.Argument(help="Files, folders, or patterns such as '*.jpg'.", show_default=False),
    ],
    layers: Annotated[
        bool, typer.Option("--layers", help="Find the first layer where the two part.")
    ] = False,
    preset: options.PresetName = None,
    json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    r"""Compare two of {checkpoint, bundle} on the same images.

    Prints how far each output is from its bound, how many mask pixels flip, the overlap of
    the masks and whether the classes agree. The exit code is 1 if any bound is exceeded.

    \b
    Examples:
      m2f check model_final_94dc52.pkl coco.m2f street.jpg
      m2f check portable.m2f plugin.m2f photos/ --layers --json
    """
    with working(f"comparing {a} with {b}"):
        from m2f.evaluate.check import check as compare

        report = compare(a, b, images, layers=layers, preset=preset)
    if json:
        show_json(report.to_json())
    else:
        show(str(report))
    if not report.passed:
        raise typer.Exit(1)
