"""What an evaluation found, for people and for programs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from m2f.config import Task
from m2f.evaluate.mapping import CategoryMap
from m2f.evaluate.metric import Scores

HEADLINE: dict[Task, tuple[str, ...]] = {
    "panoptic": ("PQ", "SQ", "RQ", "PQ_things", "PQ_stuff"),
    "instance": ("AP", "AP50", "AP75", "APs", "APm", "APl", "boundary_AP"),
    "semantic": ("mIoU", "fwIoU", "mACC", "pACC"),
}
"""Names of the metrics that people compare."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageScore:
    """How well one image went.

    Attributes:
        key: The data set's name for it.
        score: 0..100, comparable within a task only: the image's own PQ with all classes
            pooled, its own mask AP, or its own mIoU. None where it has no ground truth and
            nothing was predicted.
    """

    key: str
    score: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The figures of one model on one data set.

    Attributes:
        model: Its name.
        data: The data set's name.
        count: Images in the data set; ``images`` may be fewer.
        resumed: Images whose results were there already.
        empty: Images without any ground truth.
        scores: Of the metric; percent.
        mapping: Which category is which.
        images: In the data set's order.
        notes: Oddities of the annotations, and how they were taken.
    """

    task: Task
    model: str
    data: str
    count: int
    resumed: int
    empty: int
    scores: Scores
    mapping: CategoryMap
    allow_missing: bool
    images: tuple[ImageScore, ...]
    notes: tuple[str, ...]

    @property
    def worst(self) -> list[ImageScore]:
        """The images that have a score, worst first."""
        scored = [image for image in self.images if image.score is not None]
        return sorted(scored, key=lambda image: image.score or 0.0)

    @property
    def headline(self) -> tuple[str, ...]:
        """Names of the metrics that people compare."""
        return HEADLINE[self.task]

    def remarks(self) -> list[str]:
        """What a reader of the figures has to know beside them."""
        mapping = self.mapping
        texts = []
        if len(self.images) < self.count:
            texts.append(f"only {len(self.images)} of {self.count} images were evaluated")
        if mapping.by_name:
            texts.append(
                f"{len(mapping.by_name)} categories were matched by name, their ids differ"
            )
        if mapping.by_id_alone:
            texts.append(
                f"{len(mapping.by_id_alone)} categories were matched by id, their names differ"
            )
        if mapping.missing:
            texts.append(
                f"the model lacks {len(mapping.missing)} categories, which count as missed: "
                + ", ".join(mapping.missing)
            )
        if mapping.ignored:
            texts.append(
                f"{len(mapping.ignored)} categories of the model are not in the data; what is "
                "predicted as one of them counts as nothing"
            )
        if mapping.other_kind:
            texts.append(
                "things here and stuff there, or the reverse: " + ", ".join(mapping.other_kind)
            )
        if self.empty:
            texts.append(f"{self.empty} images have no ground truth")
        if self.notes:
            texts.append(f"{len(self.notes)} oddities of the annotations: {self.notes[0]}...")
        return texts

    def to_json(self) -> dict[str, Any]:
        """Ready for ``json.dump``."""
        return {
            "task": self.task,
            "model": self.model,
            "data": self.data,
            "images": {
                "in_data": self.count,
                "evaluated": len(self.images),
                "resumed": self.resumed,
                "without_ground_truth": self.empty,
            },
            "metrics": dict(self.scores.metrics),
            "categories": {**self.mapping.to_json(), "missing_allowed": self.allow_missing},
            "notes": list(self.notes),
            "per_class": [
                {
                    "id": one.category.id,
                    "name": one.category.name,
                    "is_thing": one.category.is_thing,
                    **one.values,
                }
                for one in self.scores.classes
            ],
            "per_image": [{"image": i.key, "score": i.score} for i in self.images],
        }
