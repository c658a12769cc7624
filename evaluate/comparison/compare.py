"""`compare`: several bundles of one model, image by image, in turns."""

from __future__ import annotations

import contextlib
import json
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from m2f import __version__
from m2f.config import Task, json_from_config
from m2f.errors import UsageError
from m2f.evaluate.comparison.agreement import Agreement, agreement, mean_agreement, painted
from m2f.evaluate.comparison.candidates import (
    Answer,
    Candidate,
    candidates,
    identity,
    size_of,
)
from m2f.evaluate.comparison.details import Details, details
from m2f.evaluate.comparison.memory import peak_memory
from m2f.evaluate.comparison.result import STAGES, Change, Comparison, Row
from m2f.evaluate.comparison.subjects import Photographs, Subjects, subjects_of
from m2f.evaluate.dataset import DataSet, Item
from m2f.evaluate.mapping import Matching
from m2f.evaluate.metric import Record
from m2f.evaluate.predictor import check_task
from m2f.evaluate.store import Keep, Store
from m2f.runtime.images import decode

Progress = Callable[[int, int, object], None]


def compare(
    bundles: Sequence[str | Path],
    data: DataSet | Photographs,
    *,
    task: Task | None = None,
    backends: Sequence[str] = ("onnxruntime",),
    limit: int | None = None,
    detailed: int = 4,
    matching: Matching | None = None,
    keep: Keep | None = None,
    threads: int | None = None,
    progress: Progress | None = None,
) -> Comparison:
    """Compares bundles of one model on the same images.

    Every image is answered by every row in turn, so that times are of one and the same
    moment; the first answer of each row is not timed.

    Args:
        bundles: At least two, or one with two backends; the first is the reference.
        data: Images with ground truth, or without.
        task: What to ask; the reference's own task unless given.
        backends: What runs them, see `m2f.runtime.session.load`.
        limit: Only the first so many images.
        detailed: Images to look into layer by layer.
        matching: How to match the categories of model and data.
        keep: Where to keep the images' results; nowhere unless given.
        threads: CPU cores to use; all unless given.
        progress: Called before each image with its number, their count, and its name.

    Raises:
        UsageError: The bundles are different models, or there is nothing to compare.
        DataError: Annotations are wrong or do not fit the model.
        MissingFile: A bundle or an image does not exist.
        ImageError: An image cannot be used.
        CheckFailed: A row's outputs are not finite.
    """
    if len(bundles) * len(backends) < 2:
        raise UsageError("there is one bundle and one backend; name at least two to compare")
    with candidates(bundles, backends, threads=threads) as rows:
        metadata = rows[0].session.metadata
        task = check_task(task, metadata)
        chosen = subjects_of(data, metadata, task, matching or Matching(), limit)
        with contextlib.ExitStack() as stack:
            store = None
            if keep is not None:
                settings = _settings(rows, chosen, task, threads)
                store = stack.enter_context(Store(keep, settings))
            run = _Run(rows, chosen, task)
            records = run.over(store, progress)
            looked = details(rows, [s.image for s in chosen.items[:detailed]], threads=threads)
            result = run.result(records, looked, min(detailed, len(chosen.items)), threads)
            if store is not None:
                store.finish(result.to_json())
    return result


class _Run:
    """The same images through all rows."""

    def __init__(self, rows: Sequence[Candidate], subjects: Subjects, task: Task) -> None:
        self.rows, self.subjects, self.task = rows, subjects, task
        self.warm = False

    def over(self, store: Store | None, progress: Progress | None) -> list[Record]:
        """A record of each image: by row its measure, agreement and times."""
        records = []
        items = self.subjects.items
        for number, item in enumerate(items, 1):
            if progress is not None:
                progress(number, len(items), item.key)
            record = store.records.get(item.key) if store is not None else None
            if record is None:
                record = self.one(item)
                if store is not None:
                    store.append(item.key, record)
            records.append(record)
        return records

    def one(self, item: Item) -> Record:
        image = decode(item.image)
        truth = self.subjects.truth(item, (image.shape[0], image.shape[1]))
        if not self.warm:
            for row in self.rows:
                row.answer(image, self.task)
            self.warm = True
        answers = {row.name: row.answer(image, self.task) for row in self.rows}
        first = answers[self.rows[0].name]
        by_row: dict[str, Any] = {}
        for name, answer in answers.items():
            by_row[name] = {
                "milliseconds": answer.milliseconds,
                "agreement": _agreement(first, answer).to_json(),
                "measure": self.subjects.measure(truth, answer.prediction),
            }
        return {"rows": by_row}

    def result(
        self,
        records: Sequence[Record],
        looked: Mapping[str, Details],
        detailed: int,
        threads: int | None,
    ) -> Comparison:
        image = self.subjects.items[0].image
        return Comparison(
            task=self.task,
            data=self.subjects.name,
            images=len(records),
            detailed=detailed,
            rows=tuple(
                self.row(row, records, looked[row.name], peak_memory(row, image, threads))
                for row in self.rows
            ),
            changes=self.changes(records),
            headline=self.subjects.headline,
            remarks=self.subjects.remarks,
        )

    def row(
        self, row: Candidate, records: Sequence[Record], looked: Details, memory: int | None
    ) -> Row:
        mine = [record["rows"][row.name] for record in records]
        first = [record["rows"][self.rows[0].name] for record in records]
        ratios = [
            sum(a["milliseconds"].values()) / sum(b["milliseconds"].values())
            for a, b in zip(first, mine, strict=True)
        ]
        return Row(
            name=row.name,
            bundle=row.bundle.manifest.name,
            precision=row.bundle.manifest.precision,
            backend=row.session.backend.name,
            bytes=size_of(row.bundle),
            metrics=self.subjects.summary([one["measure"] for one in mine]),
            agreement=None
            if row is self.rows[0]
            else mean_agreement(Agreement(**one["agreement"]) for one in mine),
            milliseconds={
                stage: statistics.median(one["milliseconds"][stage] for one in mine)
                for stage in STAGES
            },
            speed=statistics.median(ratios),
            peak_memory=memory,
            flips=looked.flips,
            layers=looked.layers,
        )

    def changes(self, records: Sequence[Record]) -> tuple[Change, ...]:
        found = [
            Change(
                image=item.key,
                row=row.name,
                pixels=100.0 - record["rows"][row.name]["agreement"]["pixels"],
            )
            for item, record in zip(self.subjects.items, records, strict=True)
            for row in self.rows[1:]
        ]
        return tuple(sorted(found, key=lambda change: -change.pixels))


def _agreement(first: Answer, other: Answer) -> Agreement:
    a, b = first, other
    if a.mask_logits.shape != b.mask_logits.shape:
        # Of other sizes of the network's input; what reaches the user can still be compared.
        same = painted(a.prediction) == painted(b.prediction)
        return Agreement(pixels=100.0 * float(same.mean()), mask_iou=None, classes=None)
    return agreement(
        (a.class_logits, a.mask_logits, a.prediction),
        (b.class_logits, b.mask_logits, b.prediction),
    )


def _settings(
    rows: Sequence[Candidate], subjects: Subjects, task: Task, threads: int | None
) -> dict[str, Any]:
    """All that an image's record depends on."""
    return {
        "task": task,
        "rows": {row.name: [row.backend, identity(row.bundle)] for row in rows},
        "rules": json.dumps(json_from_config(rows[0].session.metadata.postprocess)),
        "data": subjects.name,
        "data_sha256": subjects.fingerprint,
        "threads": threads,
        "m2f": __version__,
    }
