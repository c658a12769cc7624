"""`m2f calibrate`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from m2f.bundle import Base
from m2f.cli import options
from m2f.cli.terminal import counting, reported, say, show, show_json, table
from m2f.config import Task
from m2f.errors import UsageError

if TYPE_CHECKING:
    from m2f.calib import CalibrationReport
    from m2f.evaluate.dataset import DataSet

SHOWN = 12
"""Parts of the ranking that are printed."""


@reported
def calibrate(
    bundle: Annotated[Path, typer.Argument(help="A bundle in float32.", show_default=False)],
    out: options.Out,
    images: Annotated[
        list[str] | None,
        typer.Option(
            "--images",
            help="Images like those the model is to see: a file, folder or pattern; repeat it "
            "for several.",
        ),
    ] = None,
    ranges: Annotated[
        Path | None,
        typer.Option(
            "--ranges",
            help="Instead of images: the ranges.json of `m2f finetune --qat`, or the "
            "calibration.json of a bundle of the same network.",
        ),
    ] = None,
    method: Annotated[
        Literal["minmax", "entropy", "percentile", "mse"],
        typer.Option(help="How a tensor's range follows from its values."),
    ] = "mse",
    percentile: Annotated[
        float, typer.Option(help="For --method percentile: share of values inside, percent.")
    ] = 99.99,
    rest: Annotated[Base, typer.Option(help="Type of what is not quantised.")] = "fp32",
    target: Annotated[
        Literal["tensorrt", "onnxruntime"],
        typer.Option(help="Whose 8-bit kernels the file is for; both can run either."),
    ] = "tensorrt",
    fp8: Annotated[
        bool, typer.Option("--fp8", help="8-bit floats (E4M3) instead of integers.")
    ] = False,
    limit: Annotated[int | None, typer.Option(help="Use only so many of the images.")] = None,
    max_drop: Annotated[
        float | None,
        typer.Option(
            "--max-drop",
            help="Lose at most so many points: of the task's metric with --data, else of "
            "agreement with float32. What costs most is then not quantised.",
        ),
    ] = None,
    by: Annotated[
        Literal["block", "layer"],
        typer.Option("--by", help="What --max-drop keeps or quantises as a whole."),
    ] = "block",
    data: Annotated[
        Path | None,
        typer.Option("--data", help="Ground truth for --max-drop, as for `m2f eval`."),
    ] = None,
    data_images: Annotated[
        Path | None, typer.Option("--data-images", help="Folder of the images of --data.")
    ] = None,
    segments: options.Segments = None,
    labels: options.Labels = None,
    ignore: options.Ignore = None,
    data_limit: Annotated[
        int | None,
        typer.Option("--data-limit", min=1, help="Judge only on the first images of --data."),
    ] = None,
    task: options.TaskName = None,
    cache: Annotated[
        Path | None,
        typer.Option(
            "--cache",
            help="Where to keep what was seen on the images; by default beside the bundle, as "
            "OUT.calibration.npz.",
        ),
    ] = None,
    plot: Annotated[
        Path | None, typer.Option("--plot", help="Draw the ranking: .svg, .png or .pdf.")
    ] = None,
    overwrite: options.Overwrite = False,
    threads: options.Threads = None,
    json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    r"""Quantise a bundle to 8 bits, with ranges from your images.

    What is seen on the images is kept in a file beside the bundle: after an interruption the
    same command goes on from there, and another method needs no new run over the images.

    \b
    Examples:
      m2f calibrate coco.m2f --images val2017 --limit 200 -o coco-int8.m2f
      m2f calibrate coco.m2f --images photos -o coco-int8.m2f --rest fp16 --max-drop 0.5
      m2f calibrate coco.m2f --images photos -o cpu.m2f --target onnxruntime --method entropy
      m2f calibrate coco.m2f --images photos -o best.m2f --max-drop 0.5 --data panoptic.json
      m2f calibrate tuned.m2f --ranges tuned/ranges.json -o tuned-int8.m2f
    """
    of_max_drop = (data, data_images, segments, labels, ignore, data_limit, plot)
    _check(images, ranges, max_drop, of_max_drop)
    with counting("loading the bundle") as progress:
        from m2f.calib import Form, Limit, Options, RangeRule, quantise
        from m2f.calib import calibrate as calibrate_bundle
        from m2f.calib.plot import check, save_ranking

        if plot is not None:
            check(plot)

        def allowed(drop: float) -> Limit:
            found = None
            if data is not None:
                truth = {"images": data_images, "segments": segments, "labels": labels}
                found = _data(bundle, data, task, ignore=ignore, **truth)
            return Limit(
                max_drop=drop, data=found, task=task, images=data_limit, by_layer=by == "layer"
            )

        how = Options(
            form=Form(kind="fp8" if fp8 else "int8", base=rest, target=target),
            rule=RangeRule(method=method, percentile=percentile),
            images=limit,
            limit=None if max_drop is None else allowed(max_drop),
            overwrite=overwrite,
        )
        if ranges is not None:
            report = quantise(bundle, ranges, out, form=how.form, overwrite=overwrite)
        else:
            report = calibrate_bundle(
                bundle,
                images or (),
                out,
                options=how,
                cache=cache or out.with_name(f"{out.stem}.calibration.npz"),
                threads=threads,
                progress=progress,
            )
        if plot is not None:
            save_ranking(plot, report.ranking, report.kept)
    if json:
        show_json(report.to_json())
    else:
        _print(report)
    for remark in report.remarks():
        say(f"note: {remark}")


def _check(
    images: list[str] | None,
    ranges: Path | None,
    max_drop: float | None,
    of_max_drop: tuple[object, ...],
) -> None:
    """Whether the options go together."""
    if max_drop is None and any(option is not None for option in of_max_drop):
        raise UsageError("--data, its options and --plot go with --max-drop; pass that, too")
    if (images is None) == (ranges is None):
        raise UsageError("ranges come from --images or from a file, --ranges; pass one of them")
    if ranges is not None and max_drop is not None:
        raise UsageError("--ranges says which layers to quantise; leave out --max-drop")


def _data(bundle: Path, data: Path, task: Task | None, **given: Any) -> DataSet:
    """Opens ground truth for the task asked for, or the model's own."""
    from m2f.bundle import Bundle
    from m2f.evaluate import open_data

    own = Bundle.open(bundle, verify=False).manifest.metadata.task
    return open_data(data, task=task or own, **given)


def _print(report: CalibrationReport) -> None:
    total = len(report.quantized) + len(report.kept) + len(report.dead)
    show(
        f"{report.bundle}: {len(report.quantized)} of {total} layers in {report.precision}, "
        f"ranges by {report.rule}" + (f" from {report.images} images" if report.images else "")
    )
    if report.metric is not None and report.reference is not None:
        assert report.reached is not None
        show(
            f"{report.metric} on {report.judged} images: {report.reference:.2f} in float32, "
            f"{report.reached:.2f} quantised"
        )
    if not report.ranking:
        return
    kept = set(report.kept)
    rows = table(
        *("part", "layers", "masks, dB", "classes, dB", ""),
        title="signal to noise with one part alone quantised, the noisiest first",
        numbers=(1, 2, 3),
    )
    for part in report.ranking[:SHOWN]:
        mark = "kept" if kept.issuperset(part.layers) else ""
        figures = (f"{part.masks_db:.1f}", f"{part.classes_db:.1f}")
        rows.add_row(part.name, str(len(part.layers)), *figures, mark)
    show(rows)
    if len(report.ranking) > SHOWN:
        show(f"and {len(report.ranking) - SHOWN} quieter parts")
