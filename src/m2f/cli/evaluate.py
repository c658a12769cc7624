"""`m2f eval`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from m2f.cli import options
from m2f.cli.terminal import counting, reported, say, show, show_json, table
from m2f.errors import UsageError

if TYPE_CHECKING:
    from m2f.evaluate import Report


@reported
def eval(
    bundle: Annotated[Path, typer.Argument(help="What `m2f export` made.", show_default=False)],
    data: options.Data,
    task: options.TaskName = None,
    images: options.Images = None,
    segments: options.Segments = None,
    labels: options.Labels = None,
    ignore: options.Ignore = None,
    match_by: Annotated[
        Literal["names", "ids"],
        typer.Option(help="Match categories by names, or by ids whatever the names."),
    ] = "names",
    allow_missing: Annotated[
        bool,
        typer.Option(
            "--allow-missing",
            help="Go on if the model lacks categories of the data; they count as missed.",
        ),
    ] = False,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first images.")] = None,
    results: Annotated[
        Path | None,
        typer.Option(help="Where to keep results; by default BUNDLE-TASK-results, here."),
    ] = None,
    resume: options.Resume = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the results of an earlier run.")
    ] = False,
    html: Annotated[
        Path | None, typer.Option(help="Write a page with the worst images to this file.")
    ] = None,
    threads: options.Threads = None,
    json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    r"""Judge a bundle by ground truth: PQ, AP and boundary AP, or mIoU.

    Results are kept image by image; after an interruption, --resume goes on from there.

    \b
    Examples:
      m2f eval coco.m2f --data annotations/panoptic_val2017.json --images val2017
      m2f eval coco.m2f --data annotations/instances_val2017.json --task instance --html ap.html
      m2f eval ade.m2f --data annotations/validation --images images/validation --labels ade20k
    """
    if resume and overwrite:
        raise UsageError("--resume keeps results and --overwrite drops them; pass one of them")
    mode: Literal["new", "resume", "replace"] = "new"
    mode = "resume" if resume else "replace" if overwrite else mode
    with counting("loading the bundle") as progress:
        from m2f.bundle import Bundle
        from m2f.evaluate import Keep, Matching, evaluate, open_data, write_page

        model = Bundle.open(bundle)
        task = model.manifest.metadata.task if task is None else task
        folder = Path(f"{bundle.stem}-{task}-results") if results is None else results
        truth = open_data(
            data, task=task, images=images, segments=segments, labels=labels, ignore=ignore
        )
        report = evaluate(
            model,
            truth,
            task=task,
            limit=limit,
            matching=Matching(by=match_by, allow_missing=allow_missing),
            keep=Keep(folder=folder, mode=mode),
            threads=threads,
            progress=progress,
        )
        if html is not None:
            write_page(html, report, model, truth, threads=threads)
    if json:
        show_json(report.to_json())
    else:
        _print(report)
    for remark in report.remarks():
        say(f"note: {remark}")
    say(f"results of single images are in {folder}")


def _print(report: Report) -> None:
    from m2f.evaluate.page import shown

    metrics = report.scores.metrics
    title = f"{report.model} on {report.data}, {len(report.images)} images"
    rows = table(*report.headline, title=title, numbers=tuple(range(len(report.headline))))
    rows.add_row(*(shown(metrics[name]) for name in report.headline))
    show(rows)
    names = tuple(report.scores.classes[0].values)
    classes = table("class", *names, numbers=tuple(range(1, len(names) + 1)))
    for one in report.scores.classes:
        classes.add_row(one.category.name, *(shown(value) for value in one.values.values()))
    show(classes)
