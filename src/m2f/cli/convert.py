"""`m2f convert`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from m2f.cli import options
from m2f.cli.terminal import counting, parity_in_words, reported, say, show, show_json, table

if TYPE_CHECKING:
    from m2f.calib.convert import Conversion

LARGEST_SHOWN = 8


@reported
def convert(
    bundle: Annotated[Path, typer.Argument(help="A bundle in fp32.", show_default=False)],
    out: options.Out,
    precision: Annotated[
        Literal["fp16", "bf16"], typer.Option(help="Type of weights and activations.")
    ] = "fp16",
    images: options.RangeImages = None,
    check: Annotated[
        bool, typer.Option("--check/--no-check", help="Compare the result with fp32.")
    ] = True,
    overwrite: options.Overwrite = False,
    threads: options.Threads = None,
    json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    r"""Write a bundle in half precision, as TensorRT builds it.

    Weights and most tensors become half; statistics, coordinates and mask decisions stay in
    float32, as does every layer whose values came near what half can hold on your images.

    \b
    Examples:
      m2f convert coco.m2f -o coco-fp16.m2f --images photos/
      m2f convert coco.m2f -o coco-bf16.m2f --precision bf16
    """
    with counting(f"converting {bundle}") as step:
        from m2f.calib.convert import convert as converted

        conversion = converted(
            bundle,
            out,
            precision=precision,
            images=images or (),
            check=check,
            overwrite=overwrite,
            threads=threads,
            progress=step,
        )
    report(conversion, json=json)


def report(conversion: Conversion, *, json: bool) -> None:
    """Prints what a conversion found."""
    manifest = conversion.bundle.manifest
    if not conversion.images:
        say("m2f: note: ranges come from a built-in image; give --images like your own")
    if json:
        from m2f.config import json_from_config
        from m2f.inspect import inspect

        raw = inspect(conversion.bundle.path).to_json()
        show_json(raw | {"reaches": json_from_config(conversion.reaches)})
        return
    size = sum(file.bytes for file in manifest.files) / 2**20
    show(f"{conversion.bundle.path}: {manifest.precision}, {size:.1f} MiB")
    show(f"against fp32: {parity_in_words(manifest.parity)}")
    rows = table("layer", "largest", "of the limit", "", numbers=(1, 2))
    for reach in sorted(conversion.reaches, key=lambda r: -r.share)[:LARGEST_SHOWN]:
        stays = "stays fp32" if reach.share > 1 else ""
        rows.add_row(reach.layer, f"{reach.largest:.4g}", f"{reach.share:.2%}", stays)
    show(rows)
    if manifest.wide:
        show(f"in fp32: {len(manifest.wide)} nodes: {', '.join(manifest.wide)}")
