"""`m2f train-sample`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from m2f.cli import options
from m2f.cli.terminal import counting, reported, say, show, show_json, table

if TYPE_CHECKING:
    from m2f.train.sample_run import SampleReport


@reported
def train_sample(
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Where to write the model; must not exist.")
    ] = Path("sample"),
    steps: Annotated[
        int | None, typer.Option(min=1, help="Steps of the whole run; the recipe's by default.")
    ] = None,
    folder: Annotated[
        Path, typer.Option(help="Where to keep the run: its checkpoint and loss curve.")
    ] = Path("sample-training"),
    resume: options.Resume = False,
    seed: options.Seed = 0,
    scenes: Annotated[
        int, typer.Option(min=1, help="Held-out scenes to measure panoptic quality on.")
    ] = 200,
    threads: options.Threads = None,
    json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    r"""Train the sample model from nothing, on scenes that the program draws.

    Hours on a CPU. Ctrl-C keeps what is done; --resume goes on from there, and the result is
    the same to the bit.

    \b
    Examples:
      m2f train-sample --threads 1
      m2f train-sample --threads 1 --resume
      m2f train-sample --steps 500 --folder short-training -o short --json
    """
    with counting("loading") as progress:
        from m2f.train.libraries import require_libraries

        require_libraries()
        from m2f.train.run import use_threads
        from m2f.train.sample_run import train_sample

        use_threads(threads)
        report = train_sample(
            out,
            folder=folder,
            steps=steps,
            seed=seed,
            scenes=scenes,
            resume=resume,
            progress=progress,
        )
    if json:
        show_json(report.to_json())
    else:
        _print(report)
    say(f"the loss curve is in {folder}")


def _print(report: SampleReport) -> None:
    rows = table("", "PQ", "SQ", "RQ", numbers=(1, 2, 3))
    for kind in ("all", "things", "stuff"):
        quality = report.quality[kind]
        rows.add_row(kind, *(f"{quality[name]:.1f}" for name in ("PQ", "SQ", "RQ")))
    show(f"{report.steps} steps, loss {report.loss.first:.1f} to {report.loss.last:.1f}")
    show(f"panoptic quality on {report.scenes} held-out scenes:")
    show(rows)
    show(f"The model is in {report.out}. Next: m2f export {report.out} -o sample.m2f")
