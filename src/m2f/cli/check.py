"""`m2f check`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from m2f.cli import options
from m2f.cli.terminal import counting, reported, say, show, show_json, table, working

if TYPE_CHECKING:
    from m2f.evaluate.check import CheckReport, ImageCheck
    from m2f.evaluate.runners import RunReport

Artefact = Annotated[str, typer.Argument(help="A checkpoint or a bundle.", show_default=False)]

WORST_SHOWN = 10


@reported
def check(
    a: Artefact,
    b: Artefact,
    images: Annotated[
        list[str] | None,
        typer.Argument(
            help="Files, folders, or patterns such as '*.jpg'; a built-in image if there are "
            "none.",
            show_default=False,
        ),
    ] = None,
    layers: Annotated[
        bool, typer.Option("--layers", help="Find the first layer where the two part.")
    ] = False,
    runner_a: Annotated[
        str | None,
        typer.Option(
            "--a", help="What runs a: torch, onnxruntime, tensorrt, ...; needs polygraphy."
        ),
    ] = None,
    runner_b: Annotated[
        str | None, typer.Option("--b", help="What runs b; an engine of it, for instance.")
    ] = None,
    limit: Annotated[
        float | None,
        typer.Option(min=0, help="With --a or --b: largest relative error of an output."),
    ] = None,
    preset: options.PresetName = None,
    threads: options.Threads = None,
    json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    r"""Compare two of {checkpoint, bundle} on the same images.

    Prints how far each output is from its bound, given the same decisions of masked
    attention; how many decisions rounding tipped; and, each side deciding for itself, how the
    masks overlap and whether the classes agree. The exit code is 1 if a bound is exceeded.

    With --a or --b whole programs are compared instead, each deciding for itself: PyTorch
    with an engine, for instance, which nobody can look into.

    \b
    Examples:
      m2f check model_final_94dc52.pkl coco.m2f street.jpg
      m2f check model_final_94dc52.pkl coco.m2f photos/ --a torch --b tensorrt
      m2f check portable.m2f plugin.m2f photos/ --layers --json
    """
    if runner_a is not None or runner_b is not None:
        _check_runners(
            a,
            b,
            images or [],
            json=json,
            a=runner_a or "torch",
            b=runner_b or "onnxruntime",
            threads=threads,
            **({} if limit is None else {"limit": limit}),
        )
        return
    with counting(f"comparing {a} with {b}") as step:
        from m2f.evaluate.check import check as compare

        report = compare(
            a, b, images or (), layers=layers, preset=preset, threads=threads, progress=step
        )
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


def _check_runners(
    checkpoint: str, bundle: str, images: list[str], *, json: bool, **how: Any
) -> None:
    with working(f"comparing {checkpoint} with {bundle}"):
        from m2f.evaluate.runners import check_runners

        report = check_runners(checkpoint, bundle, images, **how)
    if json:
        show_json(report.to_json())
    else:
        _print_runners(report)
    if not report.passed:
        failed = sum(not image.passed for image in report.images)
        say(
            f"m2f: {failed} of {len(report.images)} images differ by more than the limit of "
            f"{report.limit:.0e}"
        )
        raise typer.Exit(1)


def _print_runners(report: RunReport) -> None:
    show(f"a: {report.a}\nb: {report.b}")
    heads = ("image", "classes", "masks", "pixels", "mask IoU", "same class", "")
    rows = table(*heads, numbers=(1, 2, 3, 4, 5))
    for image in report.images:
        rows.add_row(
            image.image,
            f"{image.class_error:.1e}",
            f"{image.mask_error:.1e}",
            f"{image.mask_pixels:.4%}",
            f"{image.mask_iou:.4f}",
            f"{image.class_agreement:.0%}",
            "agrees" if image.passed else "DIFFERS",
        )
    show(rows)


def _print(report: CheckReport, *, layers: bool) -> None:
    show(f"a: {report.a}\nb: {report.b}")
    rows = table(
        "image",
        "size",
        "classes (bound)",
        "masks (bound)",
        "pixels",
        "tipped",
        "mask IoU (least)",
        "same class",
        "",
        numbers=(2, 3, 4, 5, 6, 7),
    )
    for image in report.images:
        rows.add_row(
            image.image,
            f"{image.size[0]}x{image.size[1]}",
            f"{image.class_error:.1e} ({image.class_bound:.1e})",
            f"{image.mask_error:.1e} ({image.mask_bound:.1e})",
            f"{image.mask_pixels:.4%}",
            f"{image.flips} of {image.decisions:,}",
            f"{image.mask_iou:.4f} ({image.mask_iou_least:.4f})",
            f"{image.class_agreement:.0%}",
            "agrees" if image.passed else "DIFFERS",
        )
    show(rows)
    if layers:
        for image in report.images:
            _print_layers(image)


def _print_layers(image: ImageCheck) -> None:
    title = f"{image.image}: the largest of {len(image.layers)} modules' differences"
    rows = table("module", "relative error", title=title, numbers=(1,))
    worst = sorted(image.layers, key=lambda layer: -layer[1])
    for name, error in worst[:WORST_SHOWN]:
        rows.add_row(name, f"{error:.1e}")
    show(rows)
    show(f"first module that differs by more than rounding: {image.first_divergence or 'none'}")
