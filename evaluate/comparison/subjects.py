"""The images of a comparison, with ground truth or without."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from m2f.config import Metadata, Task
from m2f.errors import UsageError
from m2f.evaluate.dataset import DataSet, Item
from m2f.evaluate.evaluation import chosen, metric_of, truth_of
from m2f.evaluate.mapping import CategoryMap, Matching, match
from m2f.evaluate.metric import Record, Value
from m2f.evaluate.report import HEADLINE
from m2f.evaluate.truth import Truth
from m2f.runtime.images import find_images
from m2f.runtime.results import Prediction


@dataclass(frozen=True, slots=True)
class Photographs:
    """Images without ground truth.

    Attributes:
        paths: Files, folders and patterns.
    """

    paths: tuple[str, ...]


class Subjects(Protocol):
    """The images, and what is known of them."""

    @property
    def name(self) -> str:
        """For people."""

    @property
    def items(self) -> Sequence[Item]:
        """At least one."""

    @property
    def fingerprint(self) -> str:
        """Changes with the images and their annotations."""

    @property
    def headline(self) -> tuple[str, ...]:
        """Names of the metrics that people compare; none without ground truth."""

    @property
    def remarks(self) -> tuple[str, ...]:
        """What a reader has to know beside the figures."""

    def truth(self, item: Item, size: tuple[int, int]) -> Truth | None:
        """The ground truth of an image of that size, if there is any."""

    def measure(self, truth: Truth | None, prediction: Prediction) -> Record | None:
        """What a metric has to know of one answer."""

    def summary(self, measures: Sequence[Record | None]) -> Mapping[str, Value] | None:
        """The metrics over all images, percent."""


def subjects_of(
    data: DataSet | Photographs,
    metadata: Metadata,
    task: Task,
    matching: Matching,
    limit: int | None,
) -> Subjects:
    """Finds the images, and matches their ground truth with the model.

    Raises:
        UsageError: The data cannot judge the task, or no image is left.
        DataError: The annotations are wrong or do not fit the model.
        MissingFile: An image does not exist.
    """
    if isinstance(data, Photographs):
        return _Unlabelled(data, limit)
    data = data.of_model(metadata.categories)
    if task not in data.tasks:
        raise UsageError(f"{data.name}: cannot judge {task} results, only {data.tasks}")
    mapping = match(data.categories, metadata.categories, matching)
    return _Labelled(data, task, mapping, limit)


def image_files(data: DataSet | Photographs) -> dict[str, Path]:
    """The file of each image, by the name it has in a comparison."""
    if isinstance(data, Photographs):
        return {str(path): path for path in find_images(data.paths)}
    return {item.key: item.image for item in data.items}


class _Unlabelled:
    headline: tuple[str, ...] = ()
    remarks = ("there is no ground truth: agreement is with the reference's answers",)

    def __init__(self, given: Photographs, limit: int | None) -> None:
        found = find_images(given.paths)[:limit]
        self.items = [Item(key=str(path), image=path) for path in found]
        self.name = Path(given.paths[0]).name if len(given.paths) == 1 else "images"

    @property
    def fingerprint(self) -> str:
        digest = hashlib.sha256()
        for item in self.items:
            digest.update(f"{item.key} {item.image.stat().st_size}\n".encode())
        return digest.hexdigest()

    def truth(self, item: Item, size: tuple[int, int]) -> None:
        return None

    def measure(self, truth: Truth | None, prediction: Prediction) -> None:
        return None

    def summary(self, measures: Sequence[Record | None]) -> None:
        return None


class _Labelled:
    def __init__(
        self, data: DataSet, task: Task, mapping: CategoryMap, limit: int | None
    ) -> None:
        self.data, self.metric = data, metric_of(task, mapping)
        self.name, self.fingerprint = data.name, data.fingerprint
        self.items = chosen(data, limit)
        self.headline = HEADLINE[task]
        self.remarks: tuple[str, ...] = ()
        if len(self.items) < len(data.items):
            text = f"only {len(self.items)} of {len(data.items)} images were compared"
            self.remarks = (text,)

    def truth(self, item: Item, size: tuple[int, int]) -> Truth:
        return truth_of(self.data, item, size)

    def measure(self, truth: Truth | None, prediction: Prediction) -> Record:
        assert truth is not None
        return self.metric.measure(truth, prediction)

    def summary(self, measures: Sequence[Record | None]) -> Mapping[str, Value]:
        return self.metric.summarise([m for m in measures if m is not None]).metrics
