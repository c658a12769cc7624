"""The rows of a comparison, opened: each bundle with each backend."""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from m2f.bundle import MANIFEST, Bundle, sha256_of
from m2f.config import Task
from m2f.errors import UsageError
from m2f.evaluate.comparison.result import STAGES
from m2f.runtime.images import Pixels
from m2f.runtime.results import Prediction
from m2f.runtime.session import Session, load

Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Answer:
    """What a candidate made of one image.

    Attributes:
        class_logits: [Q, K + 1].
        mask_logits: [Q, h, w].
        milliseconds: By stage.
    """

    class_logits: Array
    mask_logits: Array
    prediction: Prediction
    milliseconds: dict[str, float]


@dataclass(frozen=True, slots=True)
class Candidate:
    """One bundle on one backend."""

    name: str
    bundle: Bundle
    backend: str
    session: Session

    def answer(self, image: Pixels, task: Task) -> Answer:
        """Segments one image, uint8 [H, W, 3] RGB, and times it stage by stage."""
        clock = [time.perf_counter()]
        prepared = self.session.prepare(image)
        batch, sizes = self.session.assembled([prepared])  # which is what resizes
        clock.append(time.perf_counter())
        class_logits, mask_logits = self.session.backend.run(batch, sizes)
        clock.append(time.perf_counter())
        prediction = self.session.segments(class_logits[0], mask_logits[0], prepared, task=task)
        clock.append(time.perf_counter())
        spent = [1e3 * (end - start) for start, end in itertools.pairwise(clock)]
        return Answer(
            class_logits[0], mask_logits[0], prediction, dict(zip(STAGES, spent, strict=True))
        )


@contextlib.contextmanager
def candidates(
    bundles: Sequence[str | Path], backends: Sequence[str], *, threads: int | None
) -> Iterator[list[Candidate]]:
    """Opens every bundle with every backend, all at once, so that they can take turns.

    Raises:
        UsageError: Two of them are the same, or they are different models.
        MissingFile: There is no such bundle.
        BundleError: One is damaged.
    """
    opened = [Bundle.open(path) for path in bundles]
    _check_models(opened)
    names = row_names([bundle.path for bundle in opened])
    with contextlib.ExitStack() as stack:
        rows = []
        for name, bundle in zip(names, opened, strict=True):
            for backend in backends:
                session = stack.enter_context(load(bundle, backend=backend, threads=threads))
                row = name if len(backends) == 1 else f"{name} ({backend})"
                rows.append(Candidate(row, bundle, backend, session))
        yield rows


def row_names(paths: Sequence[Path]) -> list[str]:
    """The folders' names, with as much of their paths as tells them apart."""
    resolved = [path.resolve() for path in paths]
    for depth in range(1, max(len(path.parts) for path in resolved) + 1):
        names = ["/".join((*p.parts[-depth:-1], p.stem)) for p in resolved]
        if len(set(names)) == len(names):
            return names
    twice = next(p for p in resolved if resolved.count(p) > 1)
    raise UsageError(f"{twice}: named twice; name each bundle once")


def identity(bundle: Bundle) -> str:
    """Changes with anything in the bundle."""
    return sha256_of(bundle.path / MANIFEST)


def size_of(bundle: Bundle) -> int:
    """Bytes of the network's file and its weights."""
    return sum(f.bytes for f in bundle.manifest.files if f.name.startswith("model.onnx"))


def _check_models(bundles: Sequence[Bundle]) -> None:
    first = bundles[0]
    for other in bundles[1:]:
        a, b = first.manifest, other.manifest
        if a.model != b.model or a.metadata.categories != b.metadata.categories:
            raise UsageError(
                f"{first.path} and {other.path} are different models ({a.name} of "
                f"{a.model.classes} classes, {b.name} of {b.model.classes}); compare versions "
                "of one model, and use `m2f eval` for different ones"
            )
