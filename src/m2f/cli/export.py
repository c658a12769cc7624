"""`m2f export`."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from m2f.bundle import Base, Form, check_place, disk_errors
from m2f.cli import options
from m2f.cli.convert import report
from m2f.cli.terminal import parity_in_words, reported, show, show_json, working
from m2f.errors import UsageError

if TYPE_CHECKING:
    from m2f.bundle import Bundle

Source = Annotated[
    str,
    typer.Argument(
        help="A checkpoint: an official .pkl or .pth, a Hugging Face folder or hub id, or "
        "an mmdetection .pth.",
        show_default=False,
    ),
]


@reported
def export(
    source: Source,
    out: options.Out,
    form: Annotated[
        Form,
        typer.Option(
            help="plugin: nodes of the m2f domain, which carry their meaning as functions; "
            "portable: standard ONNX only."
        ),
    ] = "plugin",
    size: Annotated[
        str | None,
        typer.Option(metavar="HxW", help="One fixed input size, e.g. 512x1024."),
    ] = None,
    min_size: Annotated[
        str | None, typer.Option("--min", metavar="HxW", help="Smallest input size.")
    ] = None,
    max_size: Annotated[
        str | None, typer.Option("--max", metavar="HxW", help="Largest input size.")
    ] = None,
    batch: Annotated[
        str, typer.Option(metavar="N|N:M", help="Images at once, fixed or from:to.")
    ] = "1",
    task: options.TaskName = None,
    preset: options.PresetName = None,
    check: Annotated[
        bool, typer.Option("--check/--no-check", help="Compare the file with PyTorch.")
    ] = True,
    algebra: Annotated[
        bool,
        typer.Option("--algebra/--no-algebra", help="Make the exact rewrites that save work."),
    ] = True,
    fused: Annotated[
        bool,
        typer.Option(
            "--fused/--no-fused",
            help="Also write the network for m2f's own CPU kernels, over the same weights.",
        ),
    ] = True,
    external_data: Annotated[
        bool,
        typer.Option("--external-data", help="Weights beside the ONNX file, even if small."),
    ] = False,
    precision: Annotated[
        Base, typer.Option(help="fp16 and bf16: as `m2f convert` makes of fp32.")
    ] = "fp32",
    images: options.RangeImages = None,
    overwrite: options.Overwrite = False,
    json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    r"""Turn a checkpoint into a bundle: an ONNX file and all that running it needs.

    The file is checked against PyTorch on the spot, and the bundle records the result.
    A bundle appears whole or not at all.

    \b
    Examples:
      m2f export model_final_94dc52.pkl -o coco.m2f
      m2f export ./hf-folder -o city.m2f --size 1024x2048
      m2f export ./hf-folder -o any.m2f --min 256x256 --max 1024x2048 --batch 1:8
      m2f export iter_375000.pth -o coco.m2f --preset coco-panoptic-r50 --form plugin
      m2f export model_final_94dc52.pkl -o coco.m2f --precision fp16 --images photos/
    """
    wanted = {"size": size, "min_size": min_size, "max_size": max_size}
    sizes = {name: options.size(text) for name, text in wanted.items() if text is not None}
    if images and precision == "fp32":
        raise UsageError("--images says what half would not hold; give --precision fp16 too")
    check_place(out, overwrite=overwrite)
    with contextlib.ExitStack() as stack, working(f"reading {source}") as progress:
        from m2f.export import Algebra, Options
        from m2f.export import export as export_bundle

        how = Options(
            form=form,
            batch=options.batch(batch),
            check=check,
            algebra=Algebra() if algebra else Algebra.none(),
            fused=fused,
            external_data=external_data,
            overwrite=overwrite,
            **sizes,
        )
        place = out
        if precision != "fp32":
            folder = tempfile.mkdtemp(prefix=f".{out.name}.", dir=_made(out.parent))
            stack.callback(shutil.rmtree, folder, ignore_errors=True)
            place = Path(folder) / out.name
        bundle = export_bundle(
            source, place, task=task, preset=preset, options=how, progress=progress
        )
        if precision != "fp32":
            from m2f.calib.convert import convert

            progress(f"converting it to {precision}")
            conversion = convert(
                bundle,
                out,
                precision=precision,
                images=images or (),
                check=check,
                overwrite=overwrite,
            )
    if precision != "fp32":
        report(conversion, json=json)
    elif json:
        from m2f.inspect import inspect

        show_json(inspect(bundle.path).to_json())
    else:
        show(_summary(bundle))


def _made(folder: Path) -> Path:
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    return folder


def _summary(bundle: Bundle) -> str:
    manifest = bundle.manifest
    size = sum(file.bytes for file in manifest.files) / 2**20
    return (
        f"{bundle.path}: {manifest.name}, {manifest.form} form, input {manifest.profile}, "
        f"{size:.1f} MiB\nagainst PyTorch: {parity_in_words(manifest.parity)}"
    )
