"""COCO's instance format: one JSON file with a polygon or run lengths per object."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pycocotools import mask as coco  # type: ignore[import-untyped, unused-ignore]

from m2f.config import Category, Task
from m2f.errors import DataError
from m2f.evaluate.annotations import (
    Annotations,
    ImageFinder,
    ImageId,
    crowd,
    known_category,
    need,
    read_annotations,
)
from m2f.evaluate.dataset import Item
from m2f.evaluate.truth import InstanceTruth, TruthObject


@dataclass(frozen=True, slots=True, eq=False)
class CocoInstances:
    """An instance data set. Images without any object take part, as in COCO's evaluation."""

    annotations: Annotations
    items: tuple[Item, ...]
    ids: Mapping[str, ImageId]
    objects: Mapping[ImageId, list[Mapping[str, Any]]]
    tasks: tuple[Task, ...] = ("instance",)

    @classmethod
    def open(cls, file: Path, images: Path) -> CocoInstances:
        """Reads the annotations.

        Args:
            file: The JSON file.
            images: Folder of the images.

        Raises:
            MissingFile: One of them does not exist.
            DataError: The file is not an instance one or contradicts itself.
        """
        annotations = read_annotations(file)
        objects: dict[ImageId, list[Mapping[str, Any]]] = {}
        seen: set[ImageId] = set()
        for number, entry in enumerate(annotations.entries):
            where = f"{file}: annotation {number}"
            if "segments_info" in entry:
                raise DataError(
                    f"{where}: has 'segments_info', so this is a panoptic file; pass "
                    "--task panoptic or the instance file"
                )
            key = need(entry, "id", (int, str), where)
            if key in seen:
                raise DataError(f"{where}: the id {key!r} is used twice; ids must be unique")
            seen.add(key)
            objects.setdefault(entry["image_id"], []).append(entry)
        finder = ImageFinder(images)
        ids = {str(annotations.images[i]["file_name"]): i for i in annotations.ordered}
        items = tuple(Item(key=name, image=finder.find(name)) for name in ids)
        return cls(annotations, items, ids, objects)

    @property
    def name(self) -> str:
        """The file's name."""
        return self.annotations.path.name

    @property
    def categories(self) -> tuple[Category, ...]:
        """The file's, in its order."""
        return self.annotations.categories

    @property
    def fingerprint(self) -> str:
        """Of the annotation file."""
        return hashlib.sha256(f"instance {self.annotations.sha256}".encode()).hexdigest()

    def of_model(self, categories: tuple[Category, ...]) -> CocoInstances:
        """Itself: it has categories of its own."""
        return self

    def truth(self, item: Item) -> InstanceTruth:
        """Encodes one image's objects.

        Raises:
            DataError: A polygon or run-length code is not one, or of another size.
        """
        image = self.ids[item.key]
        size = self.annotations.size(image)
        if size is None:
            raise DataError(
                f"{self.annotations.path}: image {image!r} has no 'height' and 'width', "
                "which its polygons need"
            )
        known = {c.id for c in self.categories}
        objects = []
        for entry in self.objects.get(image, []):
            where = f"{self.annotations.path}: annotation {entry['id']!r}"
            rle = rle_from_segmentation(
                need(entry, "segmentation", (list, dict), where), size, where
            )
            area = (
                need(entry, "area", (int, float), where) if "area" in entry else coco.area(rle)
            )
            objects.append(
                TruthObject(
                    category_id=known_category(entry, known, where),
                    rle=rle,
                    area=float(area),
                    is_crowd=crowd(entry, where),
                )
            )
        return InstanceTruth(size=size, objects=tuple(objects))


def rle_from_segmentation(
    segmentation: Any, size: tuple[int, int], where: str
) -> dict[str, Any]:
    """Brings polygons and run lengths, compressed or not, to one form.

    Args:
        segmentation: A list of polygons [x, y, x, y, ...], or {"size", "counts"}.
        size: Height and width of the image, pixels.
        where: How to call the place in error messages.

    Raises:
        DataError: It is neither, or the run lengths are of another size.
    """
    if isinstance(segmentation, list):
        # Of four numbers pycocotools would silently make a box.
        good = segmentation and all(
            isinstance(p, list)
            and len(p) >= 6
            and len(p) % 2 == 0
            and all(isinstance(v, (int, float)) for v in p)
            for p in segmentation
        )
        if not good:
            raise DataError(
                f"{where}: a polygon is a list of at least three x, y pairs, and a "
                "segmentation a list of at least one"
            )
        merged: dict[str, Any] = coco.merge(coco.frPyObjects(segmentation, *size))
        return merged
    counts = need(segmentation, "counts", (list, str), where)
    given = need(segmentation, "size", list, where)
    if tuple(given) != size:
        raise DataError(
            f"{where}: its mask is {'x'.join(map(str, given))}, the image {size[0]}x{size[1]}"
        )
    if isinstance(counts, list):
        if not all(isinstance(c, int) and c >= 0 for c in counts):
            raise DataError(f"{where}: run lengths must be whole numbers from 0 on")
        total = sum(counts)
        rle: dict[str, Any] = coco.frPyObjects(segmentation, *size)
    else:
        total = _length(counts, where)
        rle = {"size": list(size), "counts": counts.encode("ascii")}
    if total != size[0] * size[1]:
        raise DataError(
            f"{where}: its run lengths sum to {total}, the image has {size[0]}x{size[1]} = "
            f"{size[0] * size[1]} pixels"
        )
    return rle


def _length(counts: str, where: str) -> int:
    """Sum of compressed run lengths; pycocotools would read past the end of a bad string.

    COCO's code: numbers in groups of five bits from the lowest, +32 where more follow, +48 to
    be printable, sign in bit 4 of the last; from the fourth number on differences to the one
    two before (maskApi.c, rleToString).
    """
    lengths: list[int] = []
    value = shift = 0
    for letter in counts:
        bits = ord(letter) - 48
        if not 0 <= bits < 64 or shift > 30:
            raise DataError(f"{where}: {letter!r} does not belong in compressed run lengths")
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        if bits & 16:
            value -= 1 << shift
        lengths.append(value + (lengths[-2] if len(lengths) > 2 else 0))
        value = shift = 0
    if shift or any(length < 0 for length in lengths):
        raise DataError(f"{where}: its compressed run lengths are cut off or damaged")
    return sum(lengths)
