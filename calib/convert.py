"""A float32 bundle in half precision: what would overflow is found first, and stays float32."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Literal

import onnx

from m2f.bundle import MODEL, WEIGHTS, Bundle, Manifest, Parity, write_manifest, writing
from m2f.calib.images import Fed, Feeder
from m2f.calib.probe import Probe
from m2f.errors import CheckFailed, M2FError, UsageError
from m2f.export import onnx_file
from m2f.export.bounds import BOUNDS
from m2f.export.exporter import check_image
from m2f.export.overflow import Reach, reaches, wide_nodes
from m2f.export.parity import OnnxSide, compare
from m2f.export.plan import Plan
from m2f.export.precision import apply
from m2f.plugins import library
from m2f.runtime.images import find_images

HalfPrecision = Literal["fp16", "bf16"]
Progress = Callable[[int, int, object], None]


@dataclass(frozen=True, kw_only=True)
class Conversion:
    """What converting found.

    Attributes:
        bundle: The new one.
        images: How many ranges were recorded on; 0: a built-in one.
        reaches: Largest magnitude of every tensor, in the order they are computed.
    """

    bundle: Bundle
    images: int
    reaches: tuple[Reach, ...]


def convert(
    bundle: str | Path | Bundle,
    out: str | Path,
    *,
    precision: HalfPrecision,
    images: Sequence[str | Path] = (),
    check: bool = True,
    overwrite: bool = False,
    threads: int | None = None,
    progress: Progress | None = None,
) -> Conversion:
    """Writes a bundle's network in half precision.

    The float32 network runs on every image first. Layers that give or read a tensor whose
    largest magnitude comes near what half can hold stay in float32.

    Args:
        bundle: In float32.
        out: Folder to make; appears whole or not at all.
        precision: "fp16" or "bf16".
        images: Files, folders, patterns; a built-in image if there are none.
        check: Compare the result with the float32 network before keeping it.
        overwrite: Replace an existing bundle.
        threads: Cores to use; all unless given.
        progress: Called before each image with its number, their count, and its name.

    Raises:
        UsageError: The bundle is not in float32, or something is at ``out`` already.
        ExportError: Half cannot hold a weight.
        CheckFailed: A tensor is not finite, or the result is not the same network any more.
    """
    source = bundle if isinstance(bundle, Bundle) else Bundle.open(bundle)
    manifest = source.manifest
    if manifest.precision != "fp32":
        raise UsageError(
            f"{source.path}: is in {manifest.precision} already, conversion begins with fp32; "
            "give the bundle it was made from"
        )
    if Path(out).resolve() == source.path.resolve():
        raise UsageError(f"{out}: is the bundle to convert; give another name with --out")
    paths = find_images([str(image) for image in images]) if images else []
    with writing(out, overwrite=overwrite) as folder:
        largest = _largest(source, paths, threads, progress)
        model, arrays = onnx_file.load(source.model_path)
        wide = wide_nodes(model, largest, precision)
        found = reaches(model, largest, precision)
        model, arrays = apply(model, arrays, Plan(base=precision, wide=frozenset(wide)))
        is_external = (source.path / WEIGHTS).is_file()
        onnx_file.save(model, arrays, folder, external_data=is_external)
        parity = _compared(source, folder / MODEL, precision, threads) if check else None
        new = _manifest(manifest, model, precision, wide, parity, Path(out).name)
        write_manifest(folder, new)
    result = Bundle.open(out, verify=False)
    return Conversion(bundle=result, images=len(paths), reaches=found)


def _largest(
    bundle: Bundle, paths: Sequence[Path], threads: int | None, progress: Progress | None
) -> Mapping[str, float]:
    """Largest magnitude of every tensor on all images."""
    model = onnx.load(str(bundle.model_path), load_external_data=False)
    probe = Probe(model, bundle.path, {}, threads=threads)
    largest: dict[str, float] = {}
    count = max(1, len(paths))
    for number, (name, fed) in enumerate(_fed(bundle, paths), 1):
        if progress is not None:
            progress(number, count, name)
        try:
            seen = probe.run(*fed)
        except M2FError as problem:
            raise type(problem)(f"{name}: {problem}") from problem
        for tensor, values in seen.items():
            peak = max(abs(float(values.low)), abs(float(values.high)))
            largest[tensor] = max(largest.get(tensor, 0.0), peak)
    return largest


def _fed(bundle: Bundle, paths: Sequence[Path]) -> Iterator[tuple[str, Fed]]:
    """Every image as the network takes it, with its name."""
    manifest = bundle.manifest
    if not paths:
        yield "a built-in image", Fed(*check_image(manifest.profile))
    feed = Feeder(manifest.metadata.preprocess, manifest.profile)
    for path in paths:
        yield str(path), feed(path)


def _compared(
    source: Bundle, path: Path, precision: HalfPrecision, threads: int | None
) -> Parity:
    """The new file against the float32 one.

    Raises:
        CheckFailed: More than rounding separates them.
    """
    manifest, bounds = source.manifest, BOUNDS[precision]
    layers = manifest.model.transformer_decoder.layers
    old, new = (
        OnnxSide(file, layers, threads=threads, library=library.find())
        for file in (source.model_path, path)
    )
    image, image_size = check_image(manifest.profile)
    found = compare(old, new, image, image_size)
    if not found.is_within(bounds):
        raise CheckFailed(
            f"in {precision} the network differs from its float32 form: relative error of the "
            f"classes {found.class_error:.1e}, of the masks {found.mask_error:.1e}, where "
            f"rounding explains {bounds.error:.1e}; nothing was kept; give --images like those "
            "it is to see, or stay in float32"
        )
    return Parity(
        size=(image.shape[0], image.shape[1], image.shape[2]),
        class_error=found.class_error,
        mask_error=found.mask_error,
        mask_pixels=found.mask_pixels,
        tipped=sum(found.tipped),
        limit=bounds.error,
    )


def _manifest(
    old: Manifest,
    model: onnx.ModelProto,
    precision: HalfPrecision,
    wide: tuple[str, ...],
    parity: Parity | None,
    name: str,
) -> Manifest:
    opset = next(entry.version for entry in model.opset_import if not entry.domain)
    return dataclasses.replace(
        old,
        name=old.source.preset or name,
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        precision=precision,
        wide=wide,
        opset=opset,
        parity=parity,
    )
