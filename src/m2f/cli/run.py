"""`m2f run`."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from m2f.cli import options
from m2f.cli.terminal import counting, reported, say, show, show_json, table

if TYPE_CHECKING:
    from m2f.run import RunReport

SHOWN = 4
"""Category names printed per image."""


@reported
def run(
    bundle: Annotated[Path, typer.Argument(help="What `m2f export` made.", show_default=False)],
    images: Annotated[
        list[str],
        typer.Argument(help="Files, folders, or patterns such as '*.jpg'.", show_default=False),
    ],
    out: options.Out,
    save: Annotated[
        list[str] | None,
        typer.Option(
            metavar="WHAT",
            help="overlay, panoptic, semantic, coco or json; repeat it for several. "
            "Overlays unless given.",
        ),
    ] = None,
    task: options.TaskName = None,
    min_score: Annotated[
        float, typer.Option(min=0, max=1, help="Leave instances below it out of overlays.")
    ] = 0.5,
    threads: options.Threads = None,
    backend: options.BackendName = None,
    device: options.DeviceName = None,
    json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    r"""Segment images with a bundle; needs no PyTorch.

    An image that cannot be read is reported and the others go on; the exit code is then 1.
    Images are never overwritten.

    \b
    Examples:
      m2f run coco.m2f street.jpg -o pictures
      m2f run coco.m2f photos/ 'more/*.png' -o pictures --save overlay --save panoptic
      m2f run coco.m2f photos/ -o results --task instance --save coco --json
      m2f run coco.m2f photos/ -o pictures --device cuda
    """
    with counting("loading the bundle") as progress:
        from m2f.run import OVERLAY, run, saves

        report = run(
            bundle,
            images,
            out,
            save=saves(save) if save else OVERLAY,
            task=task,
            threads=threads,
            backend=backend,
            device=device,
            min_score=min_score,
            progress=progress,
        )
    for image in report.images:
        if image.error is not None:
            say(f"m2f: {image.error}")
    if json:
        show_json(report.to_json())
    else:
        _print(report, min_score)
    if report.failed:
        say(f"m2f: {report.failed} of {len(report.images)} images failed; the rest are done")
        raise typer.Exit(1)


def _print(report: RunReport, min_score: float) -> None:
    rows = table("image", "segments", "most of it", "written", numbers=(1,))
    for image in report.images:
        if image.prediction is None:
            continue
        shown = image.prediction
        if shown.task == "instance":
            shown = shown.above(min_score)  # as in the overlay; the files hold all
        areas: Counter[str] = Counter()
        for segment in shown.segments:
            areas[segment.name] += segment.area
        names = ", ".join(name for name, _ in areas.most_common(SHOWN))
        written = "\n".join(str(path) for path in image.outputs)
        rows.add_row(str(image.image), str(len(shown)), names, written)
    if rows.row_count:
        show(rows)
    for path in report.outputs:
        show(f"wrote {path}")
