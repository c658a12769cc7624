"""Whatever can be evaluated: a bundle, or anything that segments as a session does."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from m2f.bundle import MANIFEST, Bundle, sha256_of
from m2f.config import Metadata, Task
from m2f.errors import UsageError
from m2f.runtime.results import Prediction


class Predictor(Protocol):
    """Segments one image at a time; `m2f.runtime.session.Session` is one."""

    @property
    def metadata(self) -> Metadata:
        """Its categories and tasks."""

    def __call__(self, image: NDArray[np.uint8], /, *, task: Task) -> Prediction:
        """Answers a task for one image, uint8 [H, W, 3] RGB, at the image's size."""


Model: TypeAlias = str | os.PathLike[str] | Bundle | Predictor


@dataclass(frozen=True, slots=True)
class Opened:
    """A model ready to be asked.

    Attributes:
        name: For people.
        identity: Changes with the model; None where nobody knows.
    """

    predictor: Predictor
    name: str
    identity: str | None


@contextlib.contextmanager
def opened(model: Model, *, threads: int | None = None) -> Iterator[Opened]:
    """Opens a bundle for the duration; a predictor stays as it is.

    Raises:
        MissingFile: There is no such bundle.
        BundleError: It is damaged.
    """
    if isinstance(model, (str, os.PathLike)):
        model = Bundle.open(os.fspath(model))
    if not isinstance(model, Bundle):
        yield Opened(model, type(model).__name__, None)
        return
    from m2f.runtime.session import load

    identity = sha256_of(model.path / MANIFEST)  # which has the hashes of all other files
    with load(model, threads=threads) as session:
        yield Opened(session, model.manifest.name, identity)


def check_task(task: Task | None, metadata: Metadata) -> Task:
    """The task itself, or the model's own.

    Raises:
        UsageError: The model cannot answer it.
    """
    task = metadata.task if task is None else task
    if task not in metadata.tasks:
        raise UsageError(
            f"the model cannot answer task {task!r}; it answers "
            f"{', '.join(map(repr, metadata.tasks))}"
        )
    return task
