"""A bundle of the same model in another precision, beside it: made once, then found."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from m2f.bundle import MANIFEST, Bundle, Precision
from m2f.calib.calibration import Options, calibrate
from m2f.calib.convert import convert
from m2f.calib.network import Form
from m2f.calib.record import Progress
from m2f.errors import UsageError


def path_of(bundle: Path, precision: Precision) -> Path:
    """Where a bundle's sibling lies: coco.m2f in int8 is coco-int8.m2f."""
    return bundle.with_name(f"{bundle.stem}-{precision}{bundle.suffix}")


def sibling(
    bundle: Path,
    precision: Precision,
    *,
    images: Sequence[str | Path] = (),
    threads: int | None = None,
    progress: Progress = lambda *_: None,
) -> Path:
    """A float32 bundle's model in another precision, as an engine is built from it.

    Eight bits are calibrated by squared error, the rest is fp16. Whoever wants it otherwise
    calls `convert` or `calibrate`, and builds that.

    Args:
        bundle: In any precision.
        precision: What it is to be in.
        images: What ranges come from: files, folders, patterns; 8 bits need some.
        threads: Cores to use; all unless given.
        progress: Called before each image with its number, their count, and its name.

    Returns:
        The bundle itself if it is in that precision, else its sibling's path.

    Raises:
        UsageError: The bundle is in a third precision, 8 bits have no images, or what lies at
            the sibling's place was made from something else.
    """
    manifest = Bundle.open(bundle, verify=False).manifest
    if manifest.precision == precision:
        return bundle
    if manifest.precision != "fp32":
        raise UsageError(
            f"{bundle}: is in {manifest.precision}, from which there is no way to {precision}; "
            "give the fp32 bundle that it was made from"
        )
    place = path_of(bundle, precision)
    if (place / MANIFEST).is_file():
        there = Bundle.open(place, verify=False).manifest
        same = (there.precision, there.source, there.profile) == (
            precision,
            manifest.source,
            manifest.profile,
        )
        if not same:
            raise UsageError(
                f"{place}: is there already and is not {bundle} in {precision}; remove it, or "
                "build the bundle you mean"
            )
        return place
    if precision in ("fp16", "bf16"):
        convert(
            bundle,
            place,
            precision="bf16" if precision == "bf16" else "fp16",
            images=images,
            threads=threads,
            progress=progress,
        )
        return place
    if not images:
        raise UsageError(
            f"{precision} needs ranges from images like those the model is to see: pass "
            "--images, or calibrate the bundle first (`m2f calibrate`)"
        )
    form = Form(kind="fp8" if precision == "fp8" else "int8", base="fp16")
    cache = place.with_name(f"{place.stem}.calibration.npz")
    how = Options(form=form)
    calibrate(
        bundle, images, place, options=how, cache=cache, threads=threads, progress=progress
    )
    return place
