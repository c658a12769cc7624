"""The figure that may drop only so far: a metric by ground truth, or agreement with FP32."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from m2f.bundle import Bundle
from m2f.config import Task
from m2f.errors import DataError
from m2f.evaluate import evaluate
from m2f.evaluate.comparison.agreement import painted
from m2f.evaluate.dataset import DataSet
from m2f.evaluate.report import HEADLINE
from m2f.runtime.images import decode
from m2f.runtime.session import load

Progress = Callable[[int, int, object], None]


class Judge(Protocol):
    """Gives a bundle points, 0..100."""

    @property
    def metric(self) -> str:
        """Of what the points are, e.g. "PQ"."""

    @property
    def images(self) -> int:
        """How many it looks at."""

    def points(self, bundle: Bundle, progress: Progress | None = None) -> float:
        """How good a bundle is."""


class TruthJudge:
    """The headline metric of a task on data with ground truth.

    Args:
        data: The data set.
        task: What to judge.
        limit: Only the first so many images.
        threads: Cores to use; all unless given.
    """

    def __init__(
        self, data: DataSet, task: Task, *, limit: int | None, threads: int | None
    ) -> None:
        self.data, self.task, self.limit, self.threads = data, task, limit, threads
        self.metric = HEADLINE[task][0]
        self.images = len(data.items[:limit])

    def points(self, bundle: Bundle, progress: Progress | None = None) -> float:
        """See `Judge`.

        Raises:
            DataError: The metric is undefined on this data, or as `evaluate` does.
        """
        report = evaluate(
            bundle,
            self.data,
            task=self.task,
            limit=self.limit,
            threads=self.threads,
            progress=progress,
        )
        value = report.scores.metrics[self.metric]
        if value is None:
            raise DataError(f"{self.data.name}: {self.metric} is undefined on these images")
        return float(value)


class AgreementJudge:
    """Share of the pixels that get the category they get in float32, percent.

    Args:
        reference: The float32 bundle.
        images: Files.
        task: What to answer.
        threads: Cores to use; all unless given.

    Raises:
        DataError: The float32 model finds nothing in any of them.
    """

    metric = "agreement"

    def __init__(
        self, reference: Bundle, images: Sequence[Path], task: Task, *, threads: int | None
    ) -> None:
        self.paths, self.task, self.threads = list(images), task, threads
        self.images = len(self.paths)
        self.expected = [answer.astype(np.int16) for answer in self._answers(reference, None)]
        if all((answer < 0).all() for answer in self.expected):
            raise DataError(
                f"the float32 model finds nothing in any of {self.images} images, so that "
                "agreement with it cannot be measured; give images with what it knows, or "
                "ground truth with --data"
            )

    def points(self, bundle: Bundle, progress: Progress | None = None) -> float:
        """See `Judge`."""
        answers = zip(self.expected, self._answers(bundle, progress), strict=True)
        return 100 * float(np.mean([(a == b).mean() for a, b in answers]))

    def _answers(self, bundle: Bundle, progress: Progress | None) -> list[NDArray[np.int32]]:
        """Category at every pixel of every image."""
        found = []
        with load(bundle, threads=self.threads, verify=False) as session:
            for number, path in enumerate(self.paths, 1):
                if progress is not None:
                    progress(number, self.images, path.name)
                found.append(painted(session(decode(path), task=self.task)))
        return found
