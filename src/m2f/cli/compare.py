"""`m2f compare`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from m2f.cli import options
from m2f.cli.terminal import counting, reported, say, show, show_json, table
from m2f.config import Task
from m2f.errors import UsageError

if TYPE_CHECKING:
    from m2f.evaluate.comparison import Comparison
    from m2f.evaluate.comparison.subjects import Photographs
    from m2f.evaluate.dataset import DataSet


@reported
def compare(
    bundles: Annotated[
        list[Path],
        typer.Argument(help="Bundles of one model, the reference first.", show_default=False),
    ],
    data: Annotated[
        Path | None,
        typer.Option("--data", help="Data with ground truth, as for `m2f eval`."),
    ] = None,
    images: Annotated[
        list[Path] | None,
        typer.Option(
            "--images",
            help="Folder of the images of --data; without --data: images or folders to "
            "compare on.",
        ),
    ] = None,
    out: Annotated[
        Path, typer.Option("--out", "-o", help="The page; a .json is written beside it.")
    ] = Path("comparison.html"),
    task: options.TaskName = None,
    segments: options.Segments = None,
    labels: options.Labels = None,
    ignore: options.Ignore = None,
    allow_missing: Annotated[
        bool,
        typer.Option("--allow-missing", help="The model may lack categories of the data."),
    ] = False,
    backend: Annotated[
        list[str] | None,
        typer.Option("--backend", help="What runs the bundles; may be given several times."),
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first images.")] = None,
    detailed: Annotated[
        int, typer.Option(min=0, help="Images to look into layer by layer.")
    ] = 4,
    shown: Annotated[int, typer.Option(min=0, help="Changed images on the page.")] = 8,
    results: Annotated[
        Path | None,
        typer.Option(help="Where to keep results of single images; nowhere unless given."),
    ] = None,
    resume: options.Resume = False,
    threads: options.Threads = None,
    json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    r"""Compare precisions: accuracy, agreement, size, speed and memory on one page.

    The first bundle is the reference. With --results, an interrupted comparison goes on
    with --resume.

    \b
    Examples:
      m2f compare coco.m2f coco-fp16.m2f coco-int8.m2f --data panoptic_val2017.json
      m2f compare coco.m2f coco-int8.m2f --images photos -o photos.html
    """
    if resume and results is None:
        raise UsageError("--resume goes on with kept results; name their folder with --results")
    backends = tuple(backend or ("onnxruntime",))
    mode: Literal["new", "resume"] = "resume" if resume else "new"
    with counting("loading the bundles") as progress:
        from m2f.evaluate import Keep, Matching
        from m2f.evaluate.comparison import compare, write_comparison
        from m2f.evaluate.comparison.subjects import image_files
        from m2f.files import write_json

        source = _data(bundles[0], data, images or [], task, segments, labels, ignore)
        found = compare(
            bundles,
            source,
            task=task,
            backends=backends,
            limit=limit,
            detailed=detailed,
            matching=Matching(allow_missing=allow_missing),
            keep=None if results is None else Keep(folder=results, mode=mode),
            threads=threads,
            progress=progress,
        )
        write_comparison(
            out,
            found,
            bundles,
            image_files(source),
            backends=backends,
            most=shown,
            threads=threads,
        )
        write_json(out.with_suffix(".json"), found.to_json())
    if json:
        show_json(found.to_json())
    else:
        _print(found)
    for remark in found.remarks:
        say(f"note: {remark}")
    say(f"the page is {out}, its figures are in {out.with_suffix('.json')}")


def _data(
    bundle: Path,
    data: Path | None,
    images: list[Path],
    task: Task | None,
    segments: Path | None,
    labels: str | None,
    ignore: int | None,
) -> DataSet | Photographs:
    """What the options say: data with ground truth, or images alone."""
    from m2f.bundle import Bundle
    from m2f.evaluate import open_data
    from m2f.evaluate.comparison.subjects import Photographs

    if data is not None:
        if len(images) > 1:
            raise UsageError(f"--data has one folder of images, {len(images)} were given")
        return open_data(
            data,
            task=task or Bundle.open(bundle, verify=False).manifest.metadata.task,
            images=images[0] if images else None,
            segments=segments,
            labels=labels,
            ignore=ignore,
        )
    if segments is not None or labels is not None or ignore is not None:
        raise UsageError("--segments, --labels and --ignore describe ground truth; pass --data")
    if not images:
        raise UsageError("nothing to compare on; pass --data, or --images without ground truth")
    return Photographs(tuple(map(str, images)))


def _print(found: Comparison) -> None:
    from m2f.evaluate.comparison.page import answers_table, costs_table

    title = f"{found.images} images of {found.data}, {found.task}"
    for names, rows in (answers_table(found), costs_table(found)):
        shown = table(*names, title=title, numbers=tuple(range(1, len(names))))
        for name, cells in rows:
            shown.add_row(name, *cells)
        show(shown)
        title = ""
