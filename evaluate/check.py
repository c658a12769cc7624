"""Do two artefacts give the same answer? Checkpoint against bundle, or bundle against bundle.

How they are compared, and why twice, is explained in `m2f.export.parity`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from m2f.bundle import MANIFEST, Bundle, InputProfile, Precision, Range
from m2f.config import Metadata, ModelConfig, json_from_config
from m2f.errors import UsageError
from m2f.export.bounds import BOUNDS, LIMIT, Bounds
from m2f.export.exporter import check_image
from m2f.export.parity import (
    Difference,
    OnnxSide,
    Side,
    TorchSide,
    Trace,
    shared_layers,
)
from m2f.export.parity import difference as difference_of
from m2f.plugins import library
from m2f.runtime.backends import cpu_file
from m2f.runtime.images import decode, find_images
from m2f.runtime.preprocess import assemble, prepare

Array = NDArray[Any]

ROUNDING = 8
"""How many times PyTorch's own distance from the exact answer another float32 implementation
may be away from PyTorch: once for each of the two, and four for other orders of summation."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageCheck:
    """What one image showed.

    Attributes:
        image: File name, or "built-in".
        size: Of the network's input, height and width, pixels.
        class_error: Relative L2 of the class logits, given the same mask decisions.
        class_bound: What rounding can explain.
        mask_error: Relative L2 of the mask logits, given the same mask decisions.
        mask_bound: What rounding can explain.
        mask_pixels: Share of mask pixels whose sign differs.
        pixel_bound: Largest share accepted.
        flips: Mask decisions that rounding tipped, of all layers together.
        decisions: How many there are.
        flip_distance: Largest distance from the threshold of a tipped decision, in units of
            its layer's root mean square.
        flip_bound: Largest distance accepted.
        mask_iou: Mean over queries, each side deciding for itself.
        mask_iou_least: Of the worst query.
        class_agreement: Share of queries with the same most likely class.
        layers: Relative L2 of each module's output, in the order they run, if asked for.
        layer_bound: Largest that the coarser precision explains.
    """

    image: str
    size: tuple[int, int]
    class_error: float
    class_bound: float
    mask_error: float
    mask_bound: float
    mask_pixels: float
    pixel_bound: float
    flips: int
    decisions: int
    flip_distance: float
    flip_bound: float
    mask_iou: float
    mask_iou_least: float
    class_agreement: float
    layers: tuple[tuple[str, float], ...] = ()
    layer_bound: float = LIMIT

    @property
    def passed(self) -> bool:
        """Whether only rounding separates the two."""
        return (
            self.class_error <= self.class_bound
            and self.mask_error <= self.mask_bound
            and self.mask_pixels <= self.pixel_bound
            and self.flip_distance <= self.flip_bound
        )

    @property
    def first_divergence(self) -> str | None:
        """The first module whose outputs differ by more than rounding."""
        return next((name for name, error in self.layers if error > self.layer_bound), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckReport:
    """What all images showed."""

    a: str
    b: str
    images: tuple[ImageCheck, ...]
    notes: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether every image passed."""
        return all(image.passed for image in self.images)

    def to_json(self) -> dict[str, Any]:
        """Everything, for `json.dump`."""
        raw: dict[str, Any] = json_from_config(self)
        for row, image in zip(raw["images"], self.images, strict=True):
            row |= {"passed": image.passed, "first_divergence": image.first_divergence}
        return {**raw, "passed": self.passed}


@dataclass(frozen=True)
class Artefact:
    """One of the two, opened."""

    side: Side
    model: ModelConfig
    metadata: Metadata
    profile: InputProfile | None
    sha256: str
    precision: Precision
    exact: Callable[[], Side] | None


def check(
    a: str | Path,
    b: str | Path,
    images: Sequence[str | Path] = (),
    *,
    layers: bool = False,
    preset: str | None = None,
    threads: int | None = None,
    progress: Callable[[int, int, object], None] | None = None,
) -> CheckReport:
    """Compares two artefacts on the same images.

    Where one of them is a checkpoint, the bound is derived from how far PyTorch's own float32
    is from its float64 on that image. Between two bundles, or where one of them is not in
    float32, it is the general one of the coarser precision.

    Args:
        a: A checkpoint (file, folder or hub id) or a bundle; the reference.
        b: Another.
        images: Files, folders, patterns; a built-in image if there are none.
        layers: Also compare module by module.
        preset: The published model a checkpoint is, where shapes do not tell.
        threads: Cores ONNX Runtime may use; all unless given.
        progress: Called before each image with its number, their count, and its name.

    Raises:
        UsageError: The two are not the same model, or take no common size.
    """
    first, second = (_opened(x, preset=preset, threads=threads, layers=layers) for x in (a, b))
    if first.model != second.model:
        raise UsageError(
            f"{a} and {b} are different models: {_different(first.model, second.model)}; "
            "compare two forms of one model"
        )
    notes = []
    if first.sha256 != second.sha256:
        notes.append("the two were not made from the same checkpoint file")
    profile = first.profile or second.profile
    rows = []
    paths = find_images([str(image) for image in images]) if images else []
    for number, given in enumerate(_inputs(paths, first.metadata, profile), 1):
        if progress is not None:
            progress(number, max(1, len(paths)), given.name)
        for artefact in (first, second):
            _check_size(artefact, given.image)
        rows.append(_checked(first, second, given, layers=layers))
    return CheckReport(
        a=first.side.name, b=second.side.name, images=tuple(rows), notes=tuple(notes)
    )


class Input(NamedTuple):
    """One image as the network takes it: uint8 [N, H, W, 3], valid sizes int64 [N, 2]."""

    name: str
    image: Array
    image_size: Array


def _checked(first: Artefact, second: Artefact, given: Input, *, layers: bool) -> ImageCheck:
    """Compares the two on one image."""
    name, image, image_size = given
    names = shared_layers(first.side, second.side) if layers else []
    x = first.side.run(image, image_size, layers=names)
    y = second.side.run(image, image_size, forced=x.decisions, layers=names)
    found = difference_of(x, y)
    bounds = BOUNDS[_coarser(first.precision, second.precision)]
    class_bound = mask_bound = bounds.error
    make_exact = first.exact or second.exact
    if make_exact is not None and bounds.error <= LIMIT:
        exact = make_exact().run(image, image_size, forced=x.decisions)
        floor = difference_of(exact, x if first.exact else y)
        class_bound = min(LIMIT, ROUNDING * floor.class_error)
        mask_bound = min(LIMIT, ROUNDING * floor.mask_error)
    free = second.side.run(image, image_size) if any(found.tipped) else y
    return _row(name, image, found, bounds, (class_bound, mask_bound), x, free)


def _coarser(a: Precision, b: Precision) -> Precision:
    return max(a, b, key=lambda precision: BOUNDS[precision].error)


def _row(
    name: str,
    image: Array,
    found: Difference,
    bounds: Bounds,
    errors: tuple[float, float],
    x: Trace,
    free: Trace,
) -> ImageCheck:
    overlap = mask_iou(x.mask_logits > 0, free.mask_logits > 0)
    agreement = x.class_logits.argmax(-1) == free.class_logits.argmax(-1)
    return ImageCheck(
        image=name,
        size=(image.shape[1], image.shape[2]),
        class_error=found.class_error,
        class_bound=errors[0],
        mask_error=found.mask_error,
        mask_bound=errors[1],
        mask_pixels=found.mask_pixels,
        pixel_bound=bounds.pixels,
        flips=sum(found.tipped),
        decisions=found.decisions,
        flip_distance=found.worst_tipped,
        flip_bound=bounds.reach,
        mask_iou=float(overlap.mean()),
        mask_iou_least=float(overlap.min()),
        class_agreement=float(agreement.mean()),
        layers=tuple(found.layers.items()),
        layer_bound=bounds.error,
    )


def mask_iou(a: Array, b: Array) -> NDArray[np.float64]:
    """Overlap of the masks [..., H, W] of each query; two empty masks agree."""
    both = (a & b).sum((-2, -1))
    either = (a | b).sum((-2, -1))
    return np.where(either == 0, 1.0, both / np.maximum(either, 1))


def _opened(
    source: str | Path, *, preset: str | None, threads: int | None, layers: bool
) -> Artefact:
    """Opens a bundle, or reads a checkpoint into the reference model.

    Of a bundle what a session would run, unless its layers are looked at: the file for our
    CPU kernels has fewer.
    """
    path = Path(source)
    if (path / MANIFEST).is_file():
        bundle = Bundle.open(path)
        manifest = bundle.manifest
        side = OnnxSide(
            bundle.model_path if layers else cpu_file(bundle),
            manifest.model.transformer_decoder.layers,
            threads=threads,
            library=library.find(),
        )
        return Artefact(
            side,
            manifest.model,
            manifest.metadata,
            manifest.profile,
            manifest.source.sha256,
            manifest.precision,
            exact=None,
        )
    return _opened_checkpoint(source, preset)


def _opened_checkpoint(source: str | Path, preset: str | None) -> Artefact:
    import torch

    from m2f.models.checkpoint import read
    from m2f.models.mask2former import model_from_weights

    checkpoint = read(source, preset=preset)
    preprocess = checkpoint.metadata.preprocess

    def side(dtype: torch.dtype) -> TorchSide:
        model = model_from_weights(checkpoint.config, checkpoint.weights, dtype=dtype)
        return TorchSide(model, preprocess)

    return Artefact(
        side(torch.float32),
        checkpoint.config,
        checkpoint.metadata,
        None,
        checkpoint.sha256,
        "fp32",
        exact=lambda: side(torch.float64),
    )


def _inputs(
    images: Sequence[Path], metadata: Metadata, profile: InputProfile | None
) -> Iterator[Input]:
    """Every image, prepared by the model's own rules."""
    if not images:
        one = Range(min=1, max=1)
        anything = Range(min=1, max=1 << 16)
        free = InputProfile(batch=one, height=anything, width=anything)
        yield Input("built-in", *check_image(profile or free))
        return
    for path in images:
        prepared = prepare(decode(path), metadata.preprocess, profile)
        least = profile.batch.min if profile else 1
        batch, sizes = assemble([prepared] * least, profile)
        yield Input(path.name, batch, sizes)


def _check_size(artefact: Artefact, image: Array) -> None:
    profile = artefact.profile
    if profile is None:
        return
    for axis, size in zip(("batch", "height", "width"), image.shape, strict=False):
        allowed = getattr(profile, axis)
        if size not in allowed:
            raise UsageError(
                f"{artefact.side.name} takes a {axis} of {allowed}, this image needs {size}; "
                "export both with the same sizes"
            )


def _different(a: ModelConfig, b: ModelConfig) -> str:
    """The parts that differ, shortly."""
    names = [f.name for f in dataclasses.fields(a) if getattr(a, f.name) != getattr(b, f.name)]
    kinds = (
        f"{x.backbone.name} of {x.transformer_decoder.queries} queries, {x.classes} classes"
        for x in (a, b)
    )
    return f"{' and '.join(kinds)}, which differ in {', '.join(names)}"
