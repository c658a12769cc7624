"""`m2f scenes`."""

from __future__ import annotations

from typing import Annotated

import typer

from m2f.cli import options
from m2f.cli.terminal import counting, reported, show, show_json


@reported
def scenes(
    out: options.Out,
    count: Annotated[int, typer.Option(help="How many.")] = 200,
    first: Annotated[int, typer.Option(help="Seed of the first; the others follow.")] = 0,
    size: Annotated[str, typer.Option(metavar="HxW", help="Of each, in pixels.")] = "160x160",
    json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    r"""Draw scenes with ground truth, as COCO panoptic, instance and semantic files.

    As it stands it draws the 200 scenes that the sample model is judged on and never saw.

    \b
    Examples:
      m2f scenes -o held-out
      m2f eval demo-output/sample.m2f --data held-out/panoptic.json
    """
    sides = options.size(size)
    with counting("drawing") as step:
        from m2f.train.draw import draw

        report = draw(out, count=count, first=first, size=sides, progress=step)
    if json:
        show_json(report.to_json())
    else:
        show(f"{report.folder}: {report.count} scenes, from seed {report.first} on")
