"""`m2f build`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from m2f.bundle import Precision
from m2f.cli import options
from m2f.cli.terminal import counting, reported, say, show, show_json, table
from m2f.engine import Flags, Target
from m2f.errors import UsageError

if TYPE_CHECKING:
    from m2f.export.engines import BuildReport

SHOWN = 6
"""Kinds of layers printed."""


@reported
def build(
    bundle: Annotated[
        Path,
        typer.Argument(help="What `m2f export` or `m2f convert` made.", show_default=False),
    ],
    target: Annotated[
        Target,
        typer.Option(
            help="tensorrt: tuned on the GPU of this machine; tensorrt-rtx: compiled ahead, "
            "without a GPU, and finished where it first runs."
        ),
    ] = "tensorrt",
    compute: Annotated[
        str | None,
        typer.Option(
            metavar="CC,...",
            help="Compute capabilities to compile for, e.g. 86,89; tensorrt-rtx only. The GPU "
            "that is there unless given, or else all.",
        ),
    ] = None,
    precision: Annotated[
        Precision | None,
        typer.Option(
            help="Of the engine; the bundle's unless given. Of an fp32 bundle the one in this "
            "precision is made first, beside it."
        ),
    ] = None,
    images: Annotated[
        list[Path] | None,
        typer.Option(
            "--images",
            help="What --precision takes ranges from: files, folders, patterns of images like "
            "those the model is to see.",
        ),
    ] = None,
    batch: Annotated[
        str | None,
        typer.Option(metavar="N|N:M", help="Images at once; the bundle's unless given."),
    ] = None,
    min_size: Annotated[
        str | None, typer.Option("--min", metavar="HxW", help="Smallest input size.")
    ] = None,
    opt_size: Annotated[
        str | None,
        typer.Option("--opt", metavar="HxW", help="Input size to tune for; the largest."),
    ] = None,
    max_size: Annotated[
        str | None, typer.Option("--max", metavar="HxW", help="Largest input size.")
    ] = None,
    workspace: Annotated[
        int | None,
        typer.Option(min=1, metavar="MIB", help="Most scratch memory a layer may use."),
    ] = None,
    level: Annotated[
        int | None,
        typer.Option(min=0, max=5, help="How long to look for fast kernels: 0 not, 5 longest."),
    ] = None,
    tf32: Annotated[
        bool, typer.Option("--tf32", help="Let float32 products round to 10 bits.")
    ] = False,
    version_compatible: Annotated[
        bool, typer.Option("--version-compatible", help="Run with later TensorRTs, too.")
    ] = False,
    hardware_compatible: Annotated[
        bool,
        typer.Option("--hardware-compatible", help="Run on every GPU from Ampere on."),
    ] = False,
    timing_cache: Annotated[
        Path | None,
        typer.Option(help="File with measured times of kernels; read, and written."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="The engine's file; in the bundle unless given."),
    ] = None,
    rebuild: Annotated[
        bool, typer.Option("--rebuild", help="Even if the same engine is there.")
    ] = False,
    json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    r"""Build a bundle's TensorRT engine, unless the same one is there already.

    The engine goes into the bundle, beside a record of all it was built from; one that no
    longer fits is refused when run, and built again here.

    \b
    Examples:
      m2f build coco.m2f
      m2f build coco.m2f --precision int8 --images photos
      m2f build coco.m2f --target tensorrt-rtx --compute 86,89,120
      m2f build coco.m2f --min 512x512 --opt 800x1216 --max 800x1344 --batch 1:4
    """
    wanted = {"min_size": min_size, "opt_size": opt_size, "max_size": max_size}
    sizes = {name: options.size(text) for name, text in wanted.items() if text is not None}
    capabilities = _capabilities(compute)
    if images and precision in (None, "fp32"):
        raise UsageError("--images gives --precision its ranges; pass fp16, bf16, int8 or fp8")
    if precision is not None:
        with counting(f"{bundle} in {precision}") as step:
            from m2f.calib.sibling import sibling

            given, bundle = (
                bundle,
                sibling(bundle, precision, images=images or (), progress=step),
            )
        if bundle != given:
            say(f"m2f: note: {given} in {precision} is {bundle}")
    with counting(f"building an engine of {bundle}") as step:
        from m2f.export.engines import BuildOptions
        from m2f.export.engines import build as build_engine

        how = BuildOptions(
            target=target,
            compute=capabilities,
            precision=precision,
            batch=options.batch(batch) if batch is not None else None,
            flags=Flags(
                workspace_mib=workspace,
                level=level,
                tf32=tf32,
                version_compatible=version_compatible,
                hardware_compatible=hardware_compatible,
            ),
            timing_cache=timing_cache,
            rebuild=rebuild,
            **sizes,
        )
        report = build_engine(
            bundle, out, options=how, progress=lambda phase, i, n: step(i + 1, n, phase)
        )
    if report.why is not None:
        say(f"m2f: note: the engine that was there was replaced: {report.why}")
    if json:
        show_json(report.to_json())
    else:
        _print(report)


def _capabilities(text: str | None) -> tuple[int, ...]:
    """Reads "86,89" or "8.6, 8.9"."""
    if text is None:
        return ()
    parts = re.split(r"[,\s]+", text.strip())
    numbers = [re.fullmatch(r"(?:sm_?)?([0-9]{1,2})\.?([0-9])", p.lower()) for p in parts]
    if not all(numbers):
        raise typer.BadParameter(f"{text!r} is no list of compute capabilities, e.g. 86,89")
    return tuple(int(n[1] + n[2]) for n in numbers if n)


def _print(report: BuildReport) -> None:
    record, key = report.record, report.record.key
    what = "built" if report.is_new else "is there already, built"
    compute = ", ".join(f"SM{c}" for c in key.compute)
    show(
        f"{report.engine}: {what} in {record.seconds:.1f} s, {record.bytes / 2**20:.1f} MiB\n"
        f"{key.target} {key.tensorrt} for {compute}, {key.precision}, input {key.sizes}"
    )
    layers = table("layers", "type", "count", numbers=(2,))
    for layer in record.layers[:SHOWN]:
        layers.add_row(layer.kind, layer.precision, f"{layer.count:,}")
    rest = sum(layer.count for layer in record.layers[SHOWN:])
    if rest:
        layers.add_row("others", "", f"{rest:,}")
    show(layers)
