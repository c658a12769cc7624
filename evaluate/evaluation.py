"""`evaluate`: a model over a data set, image by image."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Callable, Sequence
from typing import Any

from m2f import __version__
from m2f.config import Task, json_from_config
from m2f.errors import DataError, UsageError
from m2f.evaluate.ap import AveragePrecision
from m2f.evaluate.data import open_data
from m2f.evaluate.dataset import DataSet, Item, check_files
from m2f.evaluate.mapping import CategoryMap, Matching, match
from m2f.evaluate.metric import Metric, Record
from m2f.evaluate.miou import SemanticQuality
from m2f.evaluate.pq import PanopticQuality
from m2f.evaluate.predictor import Model, Opened, Predictor, check_task, opened
from m2f.evaluate.report import ImageScore, Report
from m2f.evaluate.store import Keep, Store
from m2f.evaluate.truth import Truth
from m2f.runtime.images import decode

Progress = Callable[[int, int, object], None]


def evaluate(
    model: Model,
    data: DataSet | str | os.PathLike[str],
    *,
    task: Task | None = None,
    limit: int | None = None,
    matching: Matching | None = None,
    keep: Keep | None = None,
    threads: int | None = None,
    progress: Progress | None = None,
) -> Report:
    """Judges a model by ground truth.

    Nothing is passed over: whatever is wrong with an image or its annotation ends the run,
    and what was done until then is kept, so that the run can go on once it is mended.

    Args:
        model: A bundle, its folder, or a predictor such as a session.
        data: A data set, or the path of one that needs no options (see `open_data`).
        task: What to judge; the model's own task unless given.
        limit: Only the first so many images.
        matching: How to match the categories of model and data.
        keep: Where to keep the images' results; nowhere unless given.
        threads: CPU cores that a bundle may use; all unless given.
        progress: Called before each image with its number, their count, and its name.

    Raises:
        DataError: Annotations are wrong, do not fit their images or the model, or say nothing.
        MissingFile: Files of the data set, or the bundle, do not exist.
        ImageError: An image cannot be used.
        UsageError: The model or the data cannot answer the task, or kept results are of
            something else.
        DiskError: Results cannot be kept.
    """
    matching = Matching() if matching is None else matching
    with opened(model, threads=threads) as source:
        metadata = source.predictor.metadata
        task = check_task(task, metadata)
        if isinstance(data, (str, os.PathLike)):
            data = open_data(data, task=task)
        data = data.of_model(metadata.categories)
        if task not in data.tasks:
            raise UsageError(f"{data.name}: cannot judge {task} results, only {data.tasks}")
        mapping = match(data.categories, metadata.categories, matching)
        items = chosen(data, limit)
        with contextlib.ExitStack() as stack:
            store = None
            if keep is not None:
                settings = _settings(source, data, task, matching, keep)
                store = stack.enter_context(Store(keep, settings))
            run = _Run(source.predictor, data, task, mapping)
            records, resumed = run.over(items, store, progress)
            report = run.report(items, records, source.name, resumed=resumed, matching=matching)
            if store is not None:
                store.finish(report.to_json())
    return report


def metric_of(task: Task, mapping: CategoryMap) -> Metric:
    """The metric that judges a task."""
    if task == "panoptic":
        return PanopticQuality(mapping)
    return AveragePrecision(mapping) if task == "instance" else SemanticQuality(mapping)


def truth_of(data: DataSet, item: Item, size: tuple[int, int]) -> Truth:
    """The ground truth of one image of ``size``, height and width.

    Raises:
        DataError: It is of another size, or wrong in itself.
    """
    truth = data.truth(item)
    if truth.size != size:
        raise DataError(
            f"{item.image}: is {size[0]}x{size[1]}, its ground truth "
            f"({item.label or data.name}) {truth.size[0]}x{truth.size[1]}; the two must be of "
            "one size"
        )
    return truth


class _Run:
    def __init__(
        self, predictor: Predictor, data: DataSet, task: Task, mapping: CategoryMap
    ) -> None:
        self.predictor, self.data, self.task, self.mapping = predictor, data, task, mapping
        self.metric = metric_of(task, mapping)

    def over(
        self, items: Sequence[Item], store: Store | None, progress: Progress | None
    ) -> tuple[list[Record], int]:
        """Records of all images, and how many of them were there already."""
        records = []
        resumed = 0
        for number, item in enumerate(items, 1):
            if progress is not None:
                progress(number, len(items), item.key)
            stamp = _stamp(item)
            record = store.records.get(item.key) if store is not None else None
            if record is None:
                record = {"bytes": stamp, **self.one(item)}
                if store is not None:
                    store.append(item.key, record)
            else:
                resumed += 1
                if record["bytes"] != stamp:
                    raise UsageError(
                        f"{item.image}: it or its label image had {record['bytes']} bytes when "
                        f"it was evaluated and has {stamp} now; pass --overwrite to start again"
                    )
            records.append(record)
        return records, resumed

    def one(self, item: Item) -> Record:
        image = decode(item.image)
        truth = truth_of(self.data, item, (image.shape[0], image.shape[1]))
        record = self.metric.measure(truth, self.predictor(image, task=self.task))
        notes = [f"{item.key}: {note}" for note in truth.notes]
        return {"empty": truth.is_empty, "notes": notes, **record}

    def report(
        self,
        items: Sequence[Item],
        records: Sequence[Record],
        model: str,
        *,
        resumed: int,
        matching: Matching,
    ) -> Report:
        empty = sum(record["empty"] for record in records)
        if empty == len(records):
            raise DataError(
                f"{self.data.name}: none of {len(records)} images has any ground truth, so "
                "there is nothing to compare with"
            )
        return Report(
            task=self.task,
            model=model,
            data=self.data.name,
            count=len(self.data.items),
            resumed=resumed,
            empty=empty,
            scores=self.metric.summarise(records),
            mapping=self.mapping,
            allow_missing=matching.allow_missing,
            images=tuple(
                ImageScore(key=item.key, score=record["score"])
                for item, record in zip(items, records, strict=True)
            ),
            notes=tuple(note for record in records for note in record["notes"]),
        )


def chosen(data: DataSet, limit: int | None) -> Sequence[Item]:
    """The first ``limit`` images, all of whose files exist.

    Raises:
        UsageError: That leaves none.
        DataError: There are none.
        MissingFile: Files do not exist.
    """
    if limit is not None and limit < 1:
        raise UsageError(f"a limit of {limit} images leaves nothing to evaluate")
    items = data.items[:limit]
    if not items:
        raise DataError(f"{data.name}: holds no image")
    check_files(items)
    return items


def _stamp(item: Item) -> list[int]:
    """Sizes in bytes, by which a file that was exchanged between two runs is known."""
    return [file.stat().st_size for file in (item.image, item.label) if file is not None]


def _settings(
    source: Opened, data: DataSet, task: Task, matching: Matching, keep: Keep
) -> dict[str, Any]:
    """All that results depend on. Not the limit: what is done stays valid for more images."""
    identity = source.identity or keep.identity
    if identity is None:
        raise UsageError(
            f"{source.name} is not a bundle, so that its results could be mixed with another "
            "model's; pass Keep(identity=...)"
        )
    metadata = json.dumps(json_from_config(source.predictor.metadata), sort_keys=True)
    return {
        "task": task,
        "model": source.name,
        "model_sha256": identity,
        "metadata_sha256": hashlib.sha256(metadata.encode()).hexdigest(),
        "data": data.name,
        "data_sha256": data.fingerprint,
        "matching": json_from_config(matching),
        "m2f": __version__,
    }
