"""`m2f check`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from m2f.cli import options
from m2f.cli.terminal import reported, say, show, show_json, table, working

if TYPE_CHECKING:
    from m2f.evaluate.check import CheckReport, ImageCheck

Artefact = Annotated[str, typer.Argument(help="A checkpoint or a bundle.", show_default=False)]


@reported
def check(
    a: Artefact,
    b: Artefact,
    images: Annotated[
        list[str] | None,
        typer.Argument(
            help="Files, folders, or patterns such as '*.jpg'; a built-in image unless given.",
            show_default=False,
        ),
    ] = None,
    layers: Annotated[
        bool, typer.Option("--layers", help="Find the first layer where the two part.")
    ] = False,
    preset: options.PresetName = None,
    threads: options.Threads = None,
    json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    r"""Compare two of {checkpoint, bundle} on the same images.

    Prints how far each output is from its bound, how many mask decisions flip, the overlap
    of the masks and whether the classes agree. The exit code is 1 if a bound is exceeded.

    \b
    Examples:
      m2f check model_final_94dc52.pkl coco.m2f
      m2f check model_final_94dc52.pkl coco.m2f street.jpg photos/
      m2f check portable.m2f plugin.m2f street.jpg --layers --json
    """
    with working(f"comparing {a} with {b}"):
        from m2f.evaluate.check import check as compare

        report = compare(a, b, images or (), layers=layers, preset=preset, threads=threads)
    for note in report.notes:
        say(f"m2f: note: {note}")
    if json:
        show_json(report.to_json())
    else:
        _print(report, layers=layers)
    if not report.passed:
        failed = sum(not image.passed for image in report.images)
        say(f"m2f: {failed} of {len(report.images)} images differ by more than rounding")
        raise typer.Exit(1)


def _print(report: CheckReport, *, layers: bool) -> None:
    show(f"a: {report.a}\nb: {report.b}")
    show("relative errors, mask pixels and mask decisions that differ, overlap of the masks")
    rows = table(
        "image",
        "classes, bound",
        "masks, bound",
        "pixels",
        "flips",
        "IoU, least",
        "same class",
        "",
        numbers=(1, 2, 3, 4, 5, 6),
    )
    for image in report.images:
        rows.add_row(
            f"{image.image}, {image.size[0]}x{image.size[1]}",
            f"{image.class_error:.0e}, {image.class_bound:.0e}",
            f"{image.mask_error:.0e}, {image.mask_bound:.0e}",
            f"{image.mask_pixels:.4%}",
            f"{image.flips} of {image.decisions:,}",
            f"{image.mask_iou:.4f}, {image.mask_iou_least:.4f}",
            f"{image.class_agreement:.1%}",
            "agrees" if image.passed else "DIFFERS",
        )
    show(rows)
    if layers:
        for image in report.images:
            _print_layers(image)


def _print_layers(image: ImageCheck) -> None:
    rows = table("layer", "relative error", title=image.image, numbers=(1,))
    for name, error in image.layers:
        rows.add_row(name, f"{error:.1e}" + (" <-" if name == image.first_divergence else ""))
    show(rows)
    first = image.first_divergence or "none"
    show(f"first layer that differs by more than rounding: {first}")
