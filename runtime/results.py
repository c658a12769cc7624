"""What a session answers: typed results of one image, and the files other tools read."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from m2f.config import Category, Task
from m2f.errors import MissingDependency, UsageError
from m2f.files import replacing
from m2f.runtime.images import Source, decode
from m2f.runtime.masks import Mask, PackedMasks

if TYPE_CHECKING:
    import supervision


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """One segment of a prediction.

    Attributes:
        id: Panoptic: its value in ``segment_ids``. Instance: its rank, from 1. Semantic: its
            value in ``label_map``.
        label: Index of its category among the prediction's categories.
        name: Its category's name.
        is_thing: Whether its category is countable.
        score: 0..1; of a merged stuff segment its best query's; None for semantic.
        area: Pixels.
        box: x, y, width, height in pixels, as COCO.
    """

    id: int
    label: int
    name: str
    is_thing: bool
    score: float | None
    area: int
    box: tuple[int, int, int, int]


@dataclass(frozen=True, eq=False, kw_only=True)
class Prediction:
    """The segments of one image, at its original size.

    Attributes:
        task: Which question was answered.
        size: Height and width of the image, pixels.
        categories: Of the model's data set.
        segments: Panoptic: by id. Instance: by descending score. Semantic: by label.
    """

    task: Task
    size: tuple[int, int]
    categories: tuple[Category, ...]
    segments: tuple[Segment, ...]
    map_: NDArray[np.int32] | None = field(default=None, repr=False)
    packed: PackedMasks | None = field(default=None, repr=False)

    def __len__(self) -> int:
        return len(self.segments)

    @cached_property
    def labels(self) -> NDArray[np.int64]:
        """Category index of every segment, [n]."""
        return np.array([s.label for s in self.segments], np.int64)

    @cached_property
    def scores(self) -> NDArray[np.float32]:
        """Score of every segment, [n]; NaN for semantic, which has none."""
        return np.array([np.nan if s.score is None else s.score for s in self.segments], "f4")

    @cached_property
    def masks(self) -> Mask:
        """Mask of every segment, bool [n, H, W]; made when first asked for."""
        out = np.empty((len(self), *self.size), np.bool_)
        for i in range(len(self)):
            out[i] = self.mask(i)
        return out

    def mask(self, index: int) -> Mask:
        """Mask of one segment, bool [H, W], without making the others."""
        if self.packed is not None:
            return self.packed[index]
        assert self.map_ is not None
        return np.equal(self.map_, self.segments[index].id)

    @property
    def segment_ids(self) -> NDArray[np.int32]:
        """Panoptic: the segment's id at every pixel, int32 [H, W]; 0 where there is none."""
        if self.task != "panoptic" or self.map_ is None:
            raise UsageError(f"{self._kind} has no segment ids; ask for task 'panoptic'")
        return self.map_

    @property
    def label_map(self) -> NDArray[np.int32]:
        """Category index at every pixel, int32 [H, W]; panoptic: -1 where no segment is."""
        if self.map_ is None:
            raise UsageError(
                f"{self._kind} has no label map, its masks overlap; ask for task 'semantic'"
            )
        if self.task == "semantic":
            return self.map_
        table = np.full(1 + max((s.id for s in self.segments), default=0), -1, np.int32)
        for s in self.segments:
            table[s.id] = s.label
        return table[self.map_]

    def above(self, score: float) -> Prediction:
        """Only the segments with at least this score.

        Raises:
            UsageError: The prediction is semantic; its segments have no scores.
        """
        if self.task == "semantic":
            raise UsageError(f"{self._kind} has no scores to select by")
        kept = np.flatnonzero(self.scores >= score)
        segments = tuple(self.segments[i] for i in kept)
        if self.packed is not None:
            return replace(self, segments=segments, packed=self.packed.take(kept))
        ids = self.segment_ids
        return replace(
            self, segments=segments, map_=ids * np.isin(ids, [s.id for s in segments])
        )

    def overlay(
        self,
        image: Source,
        *,
        alpha: float = 0.5,
        labels: bool = True,
        boxes: bool = False,
        min_score: float = 0.5,
    ) -> Image.Image:
        """Draws the segments over the image.

        Args:
            image: The image that was segmented.
            alpha: Opacity of the segments, 0..1.
            labels: Write names, and scores of things, where there is room.
            boxes: Draw a box around each thing.
            min_score: Instances below it are left out.

        Raises:
            ShapeError: The image has another size.
        """
        from m2f.runtime.overlay import draw

        shown = self.above(min_score) if self.task == "instance" else self
        return draw(shown, decode(image), alpha=alpha, labels=labels, boxes=boxes)

    def to_coco_rle(self, image_id: int | str = 0) -> list[dict[str, Any]]:
        """COCO results, one per segment: what ``pycocotools`` loads and evaluates.

        Returns:
            ``{"image_id", "category_id", "segmentation": {"size", "counts"}, "bbox",
            "score"}``, ready for JSON; without "score" for semantic.
        """
        from pycocotools import mask as coco  # type: ignore[import-untyped]

        results = []
        for i, segment in enumerate(self.segments):
            rle = coco.encode(np.asfortranarray(self.mask(i), np.uint8))
            result: dict[str, Any] = {
                "image_id": image_id,
                "category_id": self.categories[segment.label].id,
                "segmentation": {
                    "size": [int(side) for side in rle["size"]],
                    "counts": rle["counts"].decode("ascii"),
                },
                "bbox": list(segment.box),
            }
            if segment.score is not None:
                result["score"] = segment.score
            results.append(result)
        return results

    def save_panoptic(
        self, folder: str | os.PathLike[str], image_id: int | str, *, stem: str | None = None
    ) -> dict[str, Any]:
        """Writes a COCO panoptic PNG, in which id = R + 256 G + 256^2 B.

        Args:
            folder: Made if it does not exist.
            image_id: Goes into the annotation.
            stem: The file's name without ".png"; ``image_id`` unless given, with twelve
                digits if it is a number, as COCO's.

        Returns:
            The image's entry for the "annotations" of COCO's panoptic JSON.

        Raises:
            UsageError: The prediction is not panoptic.
            DiskError: The file cannot be written.
        """
        ids = self.segment_ids
        if stem is None:
            stem = f"{image_id:012d}" if isinstance(image_id, int) else image_id
        rgb = np.stack([ids & 255, ids >> 8 & 255, ids >> 16 & 255], axis=2).astype(np.uint8)
        _save_png(Path(folder) / f"{stem}.png", Image.fromarray(rgb))
        infos = [
            {
                "id": s.id,
                "category_id": self.categories[s.label].id,
                "isthing": int(s.is_thing),
                "score": s.score,
                "area": s.area,
                "bbox": list(s.box),
                "iscrowd": 0,
            }
            for s in self.segments
        ]
        return {"image_id": image_id, "file_name": f"{stem}.png", "segments_info": infos}

    def save_semantic(self, path: str | os.PathLike[str], *, void: int | None = None) -> None:
        """Writes a PNG of the data set's category ids, 8 bit if they fit, else 16 bit.

        Args:
            path: Where to; its folder is made if it does not exist.
            void: Value of pixels without a segment (of panoptic predictions); the largest
                of the bit depth unless given.

        Raises:
            UsageError: The prediction is an instance one, or an id needs more than 16 bits.
            DiskError: The file cannot be written.
        """
        ids = [c.id for c in self.categories] + ([] if void is None else [void])
        if min(ids) < 0 or max(ids) > 65535:
            raise UsageError(
                f"category ids run from {min(ids)} to {max(ids)}, a PNG holds 0..65535"
            )
        kind: type[np.uint8] | type[np.uint16] = np.uint8 if max(ids) <= 255 else np.uint16
        last = int(np.iinfo(kind).max) if void is None else void
        table = np.array([c.id for c in self.categories] + [last], kind)
        _save_png(Path(path), Image.fromarray(table[self.label_map]))  # -1 is the last

    def to_json(self) -> dict[str, Any]:
        """A summary ready for ``json.dump``: sizes and segments, without pixels."""
        return {
            "task": self.task,
            "size": list(self.size),
            "segments": [
                {
                    "id": s.id,
                    "category_id": self.categories[s.label].id,
                    "name": s.name,
                    "is_thing": s.is_thing,
                    "score": s.score,
                    "area": s.area,
                    "box": list(s.box),
                }
                for s in self.segments
            ],
        }

    def to_supervision(self) -> supervision.Detections:
        """The segments as `supervision.Detections`, for its annotators, trackers and zones.

        ``class_id`` is the category's index; ``data`` holds "class_name", "is_thing" and
        "segment_id".

        Raises:
            MissingDependency: supervision is not installed.
        """
        try:
            import supervision
        except ImportError as problem:
            raise MissingDependency(
                "supervision is not installed; run: pip install 'm2f-deploy[supervision]'"
            ) from problem
        corners = np.array([s.box for s in self.segments], np.float32).reshape(-1, 4)
        corners[:, 2:] += corners[:, :2]
        return supervision.Detections(
            xyxy=corners,
            mask=self.masks,
            confidence=None if self.task == "semantic" else self.scores,
            class_id=self.labels,
            data={
                "class_name": np.array([s.name for s in self.segments], dtype=np.str_),
                "is_thing": np.array([s.is_thing for s in self.segments], dtype=np.bool_),
                "segment_id": np.array([s.id for s in self.segments], dtype=np.int64),
            },
        )

    @property
    def _kind(self) -> str:
        return f"a{'n' if self.task == 'instance' else ''} {self.task} prediction"


def _save_png(path: Path, image: Image.Image) -> None:
    with replacing(path) as stream:
        image.save(stream, format="PNG")
