"""From the paths a user names to a data set."""

from __future__ import annotations

import os
from pathlib import Path

from m2f.config import Task
from m2f.errors import MissingFile, UsageError
from m2f.evaluate.coco_instances import CocoInstances
from m2f.evaluate.coco_panoptic import CocoPanoptic
from m2f.evaluate.dataset import DataSet, some
from m2f.evaluate.folders import CONVENTIONS, SemanticFolders

AnyPath = str | os.PathLike[str]

_PREFIX = {"panoptic": "panoptic", "instance": "instances"}
_IMAGES = ("images", "leftImg8bit")
_LABELS = ("semantic", "labels", "annotations", "gtFine")


def open_data(
    path: AnyPath,
    *,
    task: Task,
    images: AnyPath | None = None,
    segments: AnyPath | None = None,
    labels: str | None = None,
    ignore: int | None = None,
) -> DataSet:
    """Opens a data set.

    Args:
        path: Panoptic and instance: COCO's annotation file, or a folder with one
            panoptic*.json (instances*.json) in it or in its "annotations". Semantic: the
            folder of label images, or one with "images" and "semantic" or "labels" in it;
            a panoptic file serves, too.
        task: What is to be judged.
        images: Folder of the images; looked for beside the annotations unless given.
        segments: Folder of panoptic PNGs; the annotation file's name without .json unless
            given.
        labels: What the values of label images mean: a name from
            `m2f.evaluate.folders.CONVENTIONS`, or a JSON file with categories.
        ignore: Value of label images that is not evaluated; the convention's unless given.

    Raises:
        MissingFile: Something named does not exist, or was not found.
        UsageError: An option does not go with this data, or one is needed.
        DataError: The annotations are wrong.
    """
    place = Path(path)
    if not place.exists():
        raise MissingFile(f"{place}: no such file or folder of annotations")
    if task == "semantic" and place.is_dir():
        return _folders(place, images, segments, labels, ignore)
    if labels is not None or ignore is not None:
        raise UsageError("--labels and --ignore belong to folders of label images")
    kind = "panoptic" if task == "semantic" else task
    file = _annotation_file(place, _PREFIX[kind]) if place.is_dir() else place
    pictures = Path(images) if images is not None else _image_folder(file)
    if kind == "panoptic":
        pngs = Path(segments) if segments is not None else file.with_suffix("")
        return CocoPanoptic.open(file, pictures, pngs)
    if segments is not None:
        raise UsageError("--segments belongs to panoptic data")
    return CocoInstances.open(file, pictures)


def _folders(
    place: Path,
    images: AnyPath | None,
    segments: AnyPath | None,
    labels: str | None,
    ignore: int | None,
) -> SemanticFolders:
    if segments is not None:
        raise UsageError("--segments belongs to panoptic data")
    if labels is None:
        raise UsageError(
            f"{place}: say what the values of its label images mean with --labels: "
            f"{', '.join(CONVENTIONS)}, or a JSON file with categories"
        )
    if images is not None:
        return SemanticFolders.open(Path(images), place, labels, ignore=ignore)
    pictures = [place / name for name in _IMAGES if (place / name).is_dir()]
    maps = [place / name for name in _LABELS if (place / name).is_dir()]
    if len(pictures) != 1 or len(maps) != 1:
        raise UsageError(
            f"{place}: cannot tell images from labels (found "
            f"{some(pictures + maps) or 'none'}); name the folder of label images, and --images"
        )
    return SemanticFolders.open(pictures[0], maps[0], labels, ignore=ignore)


def _annotation_file(folder: Path, prefix: str) -> Path:
    files = sorted(folder.glob(f"{prefix}*.json"))
    files = files or sorted(folder.glob(f"annotations/{prefix}*.json"))
    if len(files) == 1:
        return files[0]
    if files:
        raise UsageError(
            f"{folder}: has {len(files)} annotation files ({some([f.name for f in files])}); "
            "name one"
        )
    raise MissingFile(f"{folder}: has no {prefix}*.json, nor has its folder annotations")


def _image_folder(file: Path) -> Path:
    """The split in the file's name (val2017) or "images", beside the file or one up."""
    split = file.stem.partition("_")[2]
    names = [split, f"images/{split}", "images"] if split else ["images"]
    places = [base / name for base in (file.parent, file.parent.parent) for name in names]
    for place in places:
        if place.is_dir():
            return place
    raise MissingFile(
        f"{file}: no folder of images beside it (looked for {some(places)}); name it with "
        "--images"
    )
