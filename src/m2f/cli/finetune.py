"""`m2f finetune`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from m2f.cli import options
from m2f.cli.terminal import counting, reported, say, show, show_json, table
from m2f.config import Task
from m2f.errors import UsageError

if TYPE_CHECKING:
    from m2f.train.finetuning import FinetuneReport


@reported
def finetune(
    data: options.Data,
    task: Annotated[Task, typer.Option(help="What to teach.", show_default=False)],
    out: options.Out,
    source: Annotated[
        str | None,
        typer.Argument(help="A checkpoint, as `m2f export` takes it.", show_default=False),
    ] = None,
    from_scratch: Annotated[
        str | None,
        typer.Option(
            metavar="PRESET",
            help="Instead of a checkpoint: a model without training, e.g. coco-panoptic-r50; "
            "or sample, which is small.",
        ),
    ] = None,
    preset: options.PresetName = None,
    images: options.Images = None,
    segments: options.Segments = None,
    labels: options.Labels = None,
    ignore: options.Ignore = None,
    steps: Annotated[int, typer.Option(min=1, help="Steps of the whole run.")] = 1000,
    batch: Annotated[int, typer.Option(min=1, help="Images per step.")] = 2,
    rate: Annotated[float, typer.Option(help="Learning rate at the start.")] = 1e-4,
    crop: Annotated[
        str, typer.Option(metavar="HxW", help="What the network sees; multiples of 32.")
    ] = "256x256",
    scale: Annotated[
        str,
        typer.Option(metavar="LEAST:MOST", help="Random size, by that which fits the crop."),
    ] = "0.1:2.0",
    flip: Annotated[bool, typer.Option("--flip/--no-flip", help="Mirror at random.")] = True,
    freeze: Annotated[
        Literal["backbone"] | None, typer.Option(help="What is not to learn.")
    ] = None,
    train_norm: Annotated[
        bool,
        typer.Option("--train-norm", help="Batch normalisations learn, too."),
    ] = False,
    qat: Annotated[
        Path | None,
        typer.Option(
            "--qat",
            metavar="BUNDLE",
            help="Learn around 8 bits: an INT8 bundle of the same checkpoint, from "
            "`m2f calibrate`.",
        ),
    ] = None,
    test_size: Annotated[
        str | None,
        typer.Option(
            metavar="LEAST:MOST",
            help="Shortest edge, and most for the longest, of images that the model will "
            "expect; by default 25/32 and 4/3 of the crop's.",
        ),
    ] = None,
    folder: Annotated[
        Path | None,
        typer.Option(help="Where to keep the run; by default OUT-training."),
    ] = None,
    resume: options.Resume = False,
    seed: options.Seed = 0,
    threads: options.Threads = None,
    json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    r"""Train a checkpoint further on your own data, whose categories become its classes.

    Classes of the same name keep their weights. Ctrl-C keeps what is done; --resume goes on
    from there, and the result is the same to the bit.

    \b
    Examples:
      m2f finetune model_final_94dc52.pkl --data pets/panoptic.json --task panoptic -o pets
      m2f finetune ./hf-folder --data instances.json --images photos --task instance -o cars
      m2f finetune ./hf-folder --data roads --labels roads.json --task semantic -o roads-model
      m2f finetune --from-scratch sample --data pets/panoptic.json --task panoptic -o pets
      m2f finetune ./hf-folder --data pets.json --task panoptic --qat int8.m2f -o tuned
    """
    with counting("loading") as progress:
        from m2f.train.libraries import require_libraries

        require_libraries()
        from m2f.evaluate import open_data
        from m2f.train.finetuning import Settings, finetune
        from m2f.train.jitter import Jitter
        from m2f.train.run import use_threads
        from m2f.train.start import start_afresh, start_from

        use_threads(threads)
        if (source is None) == (from_scratch is None):
            raise UsageError("name a checkpoint, or a preset with --from-scratch; one of them")
        edges = None if test_size is None else options.span(test_size)
        settings = Settings(
            task=task,
            steps=steps,
            batch=batch,
            rate=rate,
            backbone_rate=0.0 if freeze == "backbone" else None,
            trains_norm=True if train_norm else None,
            jitter=Jitter(crop=options.size(crop), scale=options.span(scale), flip=flip),
            test_size=None if edges is None else (int(edges[0]), int(edges[1])),
            seed=seed,
        )
        truth = open_data(
            data, task=task, images=images, segments=segments, labels=labels, ignore=ignore
        )
        start = start_from(source, preset=preset) if source else start_afresh(str(from_scratch))
        around = None
        if qat is not None:
            from m2f.train.recovery import recovery

            around = recovery(qat, start)
        report = finetune(
            start,
            truth,
            out,
            settings=settings,
            folder=folder,
            resume=resume,
            recovery=around,
            progress=progress,
        )
    for note in report.notes:
        say(f"m2f: note: {note}")
    if json:
        show_json(report.to_json())
    else:
        _print(report)
    say(f"the loss curve is in {report.folder}")


def _print(report: FinetuneReport) -> None:
    rows = table("classes", "", "", numbers=(1,))
    for what, names in report.classes._asdict().items():
        rows.add_row(what, str(len(names)), ", ".join(names))
    show(rows)
    loss = report.loss
    show(
        f"{report.steps} steps on {report.images} images, "
        f"loss {loss.first:.1f} to {loss.last:.1f}"
    )
    out = report.out
    show(f"The model is in {out}. Next: m2f export {out} -o {out}.m2f")
    if report.ranges is not None:
        show(f"then m2f calibrate {out}.m2f --ranges {report.ranges} -o {out}-int8.m2f")
