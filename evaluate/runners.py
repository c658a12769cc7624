"""Two programs on the same images, each deciding for itself, by Polygraphy's comparator.

`check` proves equality with forced decisions, which needs a graph that can be opened. An
engine cannot be; so here whole outputs are compared, whatever runs them.
"""

from __future__ import annotations

import contextlib
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from m2f.bundle import Bundle, InputProfile
from m2f.config import json_from_config
from m2f.errors import MissingDependency, UsageError
from m2f.evaluate.check import mask_iou
from m2f.export.bounds import LIMIT
from m2f.export.exporter import check_image
from m2f.export.parity import relative_error
from m2f.runtime.backend import Backend
from m2f.runtime.backend_torch import TorchBackend
from m2f.runtime.backends import BACKENDS, open_backend
from m2f.runtime.images import decode, find_images
from m2f.runtime.preprocess import assemble, prepare

Array = NDArray[Any]

RUNNERS = ("torch", *BACKENDS)
"""The checkpoint in PyTorch, or the bundle in any backend."""

_OUTPUTS = ("class_logits", "mask_logits")


@dataclass(frozen=True, slots=True, kw_only=True)
class RunCheck:
    """How far two programs are apart on one image.

    Attributes:
        image: File name, or "built-in".
        class_error: Relative L2 of the class logits.
        mask_error: Relative L2 of the mask logits.
        mask_pixels: Share of mask pixels whose sign differs.
        mask_iou: Mean over queries.
        class_agreement: Share of queries with the same most likely class.
        passed: Whether both errors are within the limit.
    """

    image: str
    class_error: float
    mask_error: float
    mask_pixels: float
    mask_iou: float
    class_agreement: float
    passed: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class RunReport:
    """What all images showed."""

    a: str
    b: str
    limit: float
    images: tuple[RunCheck, ...]

    @property
    def passed(self) -> bool:
        """Whether every image did."""
        return all(image.passed for image in self.images)

    def to_json(self) -> dict[str, Any]:
        """Ready for ``json.dump``."""
        return {**json_from_config(self), "passed": self.passed}


def check_runners(
    checkpoint: str | Path,
    bundle: str | Path,
    images: Sequence[str | Path] = (),
    *,
    a: str = "torch",
    b: str = "onnxruntime",
    limit: float = LIMIT,
    threads: int | None = None,
) -> RunReport:
    """Runs one model in two programs and compares their outputs.

    Args:
        checkpoint: What "torch" runs; the bundle again where neither is "torch".
        bundle: What all others run.
        images: Files, folders, patterns; a built-in image if there are none.
        a: Of `RUNNERS`; the reference.
        b: Another.
        limit: Largest relative L2 of an output. The default is float32's rounding: half
            precision, and a mask decision that rounding tips, exceed it.
        threads: CPU cores to use; all unless given.

    Raises:
        UsageError: There is no such runner.
        MissingDependency: Polygraphy, or what a runner needs, is not installed.
    """
    unknown = [name for name in (a, b) if name not in RUNNERS]
    if unknown:
        raise UsageError(f"unknown runner {unknown[0]!r}; there are {', '.join(RUNNERS)}")
    opened = Bundle.open(bundle)
    with contextlib.ExitStack() as stack:
        backends = [
            stack.enter_context(contextlib.closing(_backend(name, checkpoint, opened, threads)))
            for name in (a, b)
        ]
        profile = _common(opened.manifest.profile, backends)
        names, feeds = zip(*_inputs(images, opened, profile), strict=True)
        first, second = _outputs(backends, feeds)
        rows = [
            _row(name, x, y, limit) for name, x, y in zip(names, first, second, strict=True)
        ]
        return RunReport(
            a=backends[0].name, b=backends[1].name, limit=limit, images=tuple(rows)
        )


def _backend(name: str, checkpoint: str | Path, bundle: Bundle, threads: int | None) -> Backend:
    if name != "torch":
        return open_backend(bundle, name, threads=threads)
    from m2f.models.checkpoint import read

    return TorchBackend.from_checkpoint(read(str(checkpoint)), threads=threads)


def _common(profile: InputProfile, backends: Sequence[Backend]) -> InputProfile:
    """The sizes of the narrowest: an engine's may be fewer than its bundle's."""
    found = [p for b in backends if (p := getattr(b, "profile", None)) is not None]
    return found[0] if found else profile


def _inputs(
    images: Sequence[str | Path], bundle: Bundle, profile: InputProfile
) -> list[tuple[str, OrderedDict[str, Array]]]:
    """Each image as the network takes it."""
    found: list[tuple[str, OrderedDict[str, Array]]] = []
    if not images:
        image, image_size = check_image(profile)
        found.append(("built-in", OrderedDict(image=image, image_size=image_size)))
    for path in find_images([str(image) for image in images]) if images else ():
        prepared = prepare(decode(path), bundle.manifest.metadata.preprocess, profile)
        batch, sizes = assemble([prepared] * profile.batch.min, profile)
        found.append((path.name, OrderedDict(image=batch, image_size=sizes)))
    return found


def _outputs(
    backends: Sequence[Backend], feeds: Sequence[OrderedDict[str, Array]]
) -> list[list[dict[str, Array]]]:
    """Polygraphy runs them one after the other, so that one GPU need not hold both."""
    try:
        from polygraphy.backend.base import BaseRunner  # type: ignore[import-untyped]
        from polygraphy.comparator import Comparator  # type: ignore[import-untyped]
        from polygraphy.logger import G_LOGGER  # type: ignore[import-untyped]
    except ImportError as problem:
        raise MissingDependency(
            f"polygraphy cannot be imported ({problem}); run: pip install polygraphy"
        ) from problem

    class Runner(BaseRunner):  # type: ignore[misc]
        """One of our backends."""

        def __init__(self, backend: Backend, index: int) -> None:
            super().__init__(name=f"{index}: {backend.name}")
            self.backend = backend

        def infer_impl(self, feed_dict: dict[str, Array]) -> OrderedDict[str, Array]:
            results = self.backend.run(feed_dict["image"], feed_dict["image_size"])
            self.inference_time = 0.0  # `m2f bench` times
            return OrderedDict(zip(_OUTPUTS, results, strict=True))

        def get_input_metadata_impl(self) -> Any:
            from polygraphy.common import TensorMetadata  # type: ignore[import-untyped]

            return (
                TensorMetadata()
                .add("image", np.uint8, (None, None, None, 3))
                .add("image_size", np.int64, (None, 2))
            )

    runners = [Runner(backend, i) for i, backend in enumerate(backends)]
    with G_LOGGER.verbosity(G_LOGGER.CRITICAL):
        results = Comparator.run(runners, data_loader=list(feeds))
    return [[dict(iteration.items()) for iteration in results[r.name]] for r in runners]


def _row(name: str, x: dict[str, Array], y: dict[str, Array], limit: float) -> RunCheck:
    classes, masks = (relative_error(y[key], x[key]) for key in _OUTPUTS)
    signs = x["mask_logits"] > 0, y["mask_logits"] > 0
    same = x["class_logits"].argmax(-1) == y["class_logits"].argmax(-1)
    return RunCheck(
        image=name,
        class_error=classes,
        mask_error=masks,
        mask_pixels=float((signs[0] != signs[1]).mean()),
        mask_iou=float(mask_iou(*signs).mean()),
        class_agreement=float(same.mean()),
        passed=max(classes, masks) <= limit,
    )
