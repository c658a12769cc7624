"""COCO's panoptic format: a JSON file, and a folder of PNGs that hold segment ids."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from m2f.config import Category, Task
from m2f.errors import DataError, MissingFile
from m2f.evaluate.annotations import (
    Annotations,
    ImageFinder,
    ImageId,
    crowd,
    known_category,
    need,
    read_annotations,
)
from m2f.evaluate.dataset import Item, read_png, some
from m2f.evaluate.truth import VOID, PanopticTruth, TruthSegment


@dataclass(frozen=True, slots=True, eq=False)
class CocoPanoptic:
    """A panoptic data set; also judges semantic results, segments becoming classes."""

    annotations: Annotations
    items: tuple[Item, ...]
    entries: Mapping[str, tuple[ImageId, Mapping[str, Any]]]
    tasks: tuple[Task, ...] = ("panoptic", "semantic")

    @classmethod
    def open(cls, file: Path, images: Path, segments: Path) -> CocoPanoptic:
        """Reads the annotations.

        Args:
            file: The JSON file.
            images: Folder of the images.
            segments: Folder of the PNGs.

        Raises:
            MissingFile: One of them does not exist.
            DataError: The file is not a panoptic one or contradicts itself.
        """
        annotations = read_annotations(file)
        if not segments.is_dir():
            raise MissingFile(
                f"{segments}: no such folder of panoptic PNGs; name it with --segments"
            )
        finder = ImageFinder(images)
        entries: dict[str, tuple[ImageId, Mapping[str, Any]]] = {}
        items = []
        for number, entry in enumerate(annotations.entries):
            where = f"{file}: annotation {number}"
            image: ImageId = entry["image_id"]
            need(entry, "segments_info", list, f"{where} (is this a panoptic file?)")
            label = need(entry, "file_name", str, where)
            key = str(annotations.images[image]["file_name"])
            if key in entries:
                raise DataError(f"{where}: image {image!r} is annotated twice")
            entries[key] = image, entry
            items.append(Item(key=key, image=finder.find(key), label=segments / label))
        if not any(entry["segments_info"] for entry in annotations.entries):
            raise DataError(f"{file}: holds no segment, so there is nothing to compare with")
        annotated = {image for image, _ in entries.values()}
        bare = [image for image in annotations.images if image not in annotated]
        if bare:
            raise DataError(
                f"{file}: {len(bare)} of {len(annotations.images)} images have no annotation: "
                f"{some(bare)}; an image with nothing in it needs an empty one"
            )
        return cls(annotations, tuple(items), entries)

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
        return hashlib.sha256(f"panoptic {self.annotations.sha256}".encode()).hexdigest()

    def of_model(self, categories: tuple[Category, ...]) -> CocoPanoptic:
        """Itself: it has categories of its own."""
        return self

    def truth(self, item: Item) -> PanopticTruth:
        """Reads one image's segments; ids of the JSON and of the PNG must be the same.

        Areas are counted in the PNG.

        Raises:
            DataError: They are not, ids repeat, or the PNG is not one of ids.
            MissingFile: The PNG does not exist.
        """
        image, entry = self.entries[item.key]
        assert item.label is not None
        ids = segment_ids(item.label)
        where = f"{self.annotations.path}: image {image!r}"
        segments = self._segments(entry["segments_info"], where)
        declared = {segment.id for segment in segments}
        present, areas = np.unique(ids, return_counts=True)
        drawn = dict(zip(present.tolist(), areas.tolist(), strict=True))
        drawn.pop(VOID, None)
        unknown, undrawn = sorted(drawn.keys() - declared), sorted(declared - drawn.keys())
        if unknown or undrawn:
            raise DataError(
                f"{where}: {item.label.name} shows segments {some(unknown) or 'none'} that the "
                f"annotation lacks, and lacks its segments {some(undrawn) or 'none'}; the two "
                "must belong together"
            )
        expected = self.annotations.size(image)
        if expected not in (None, ids.shape):
            raise DataError(
                f"{where}: {item.label.name} is {ids.shape[0]}x{ids.shape[1]}, the annotation "
                f"says {expected[0]}x{expected[1]}"
            )
        return PanopticTruth(
            ids=ids, segments=segments, notes=_area_notes(entry["segments_info"], drawn)
        )

    def _segments(self, entries: list[Any], where: str) -> tuple[TruthSegment, ...]:
        known = {c.id for c in self.categories}
        segments: dict[int, TruthSegment] = {}
        for entry in entries:
            key = need(entry, "id", int, f"{where}, a segment")
            here = f"{where}, segment {key}"
            if key in segments:
                raise DataError(f"{here}: the id is used twice; ids must be unique")
            if not VOID < key < 1 << 24:
                raise DataError(f"{here}: ids run from 1 to 2^24 - 1; 0 is void")
            category = known_category(entry, known, here)
            segments[key] = TruthSegment(
                id=key, category_id=category, is_crowd=crowd(entry, here)
            )
        return tuple(segments.values())


def segment_ids(path: Path) -> NDArray[np.int32]:
    """Reads a panoptic PNG: id = R + 256 G + 256^2 B.

    Raises:
        DataError: It is damaged or not an RGB image.
        MissingFile: It does not exist.
    """
    array = read_png(path)
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] not in (3, 4):
        raise DataError(
            f"{path}: a panoptic PNG is 8-bit RGB, this one is {array.dtype} "
            f"{'x'.join(map(str, array.shape))}"
        )
    rgb = array.astype(np.int32)
    return np.asarray(rgb[..., 0] | rgb[..., 1] << 8 | rgb[..., 2] << 16)


def _area_notes(entries: list[Any], drawn: Mapping[int, int]) -> tuple[str, ...]:
    return tuple(
        f"segment {entry['id']} has area {entry['area']} in the JSON and {drawn[entry['id']]} "
        "pixels in the PNG, which count"
        for entry in entries
        if "area" in entry and entry["area"] != drawn[entry["id"]]
    )
