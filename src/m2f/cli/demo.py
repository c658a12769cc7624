"""`m2f demo`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from m2f.cli import options
from m2f.cli.terminal import parity_in_words, reported, show, show_json, table, working

if TYPE_CHECKING:
    from m2f.demo import DemoReport


@reported
def demo(
    out: Annotated[Path, typer.Option("--out", "-o", help="Where to write.")] = Path(
        "demo-output"
    ),
    json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    r"""Export the sample model, run it on a photograph, and write pictures.

    \b
    Examples:
      m2f demo
      m2f demo -o /tmp/m2f-demo --json
    """
    with working("reading the sample model") as progress:
        from m2f.demo import demo

        report = demo(out, progress=progress)
    if json:
        show_json(report.to_json())
    else:
        _print(report)


def _print(report: DemoReport) -> None:
    rows = table("picture", "segments", "of them", numbers=(1,))
    for image in report.run.images:
        if image.prediction is None:
            continue
        names = sorted({segment.name for segment in image.prediction.segments})
        rows.add_row(str(image.outputs[0]), str(len(image.prediction)), ", ".join(names))
    show(rows)
    parity = report.bundle.manifest.parity
    show(f"The exported file against PyTorch: {parity_in_words(parity)}.")
    show(f"Bundle, pictures and report.json are in {report.out}/.")
    show("Next: m2f export YOUR_CHECKPOINT -o model.m2f")
