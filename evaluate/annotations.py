"""COCO's annotation files, checked as they are read: structure, ids, references."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from m2f.config import Category
from m2f.errors import DataError, MissingFile
from m2f.evaluate.dataset import some
from m2f.models.categories import categories_generic
from m2f.runtime.images import SUFFIXES

ImageId: TypeAlias = int | str

# cityscapesScripts writes "_gtFine_leftImg8bit" where the file is "_leftImg8bit".
_ENDINGS = ("_gtFine_leftImg8bit", "_leftImg8bit", "_gtFine_panoptic")


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Annotations:
    """One parsed file.

    Attributes:
        sha256: Of the file.
        images: By id, in the file's order.
        categories: In the file's order.
        entries: The "annotations", each known to name an image of this file.
    """

    path: Path
    sha256: str
    images: Mapping[ImageId, Mapping[str, Any]]
    categories: tuple[Category, ...]
    entries: tuple[Mapping[str, Any], ...]

    @property
    def ordered(self) -> list[ImageId]:
        """Image ids as COCO's own evaluation orders them: sorted, where they can be."""
        return sorted(self.images, key=lambda i: (isinstance(i, str), i))

    def size(self, image: ImageId) -> tuple[int, int] | None:
        """Height and width as the file says, if it does."""
        entry = self.images[image]
        sides = entry.get("height"), entry.get("width")
        if not all(isinstance(side, int) and side > 0 for side in sides):
            return None
        return sides  # type: ignore[return-value]


def read_annotations(path: Path) -> Annotations:
    """Reads and checks the parts that panoptic and instance files share.

    Raises:
        MissingFile: It does not exist.
        DataError: It is not JSON, not COCO's, or ids repeat or lead nowhere.
    """
    raw, sha256 = _parse(path)
    images = _by_id(raw["images"], f"{path}: image")
    categories = _categories(path, raw["categories"])
    for number, entry in enumerate(raw["annotations"]):
        image = need(entry, "image_id", (int, str), f"{path}: annotation {number}")
        if image not in images:
            raise DataError(
                f"{path}: annotation {number} is of image {image!r}, which is not among the "
                f"file's {len(images)} images"
            )
    if not raw["annotations"]:
        raise DataError(f"{path}: holds no annotation, so there is nothing to compare with")
    return Annotations(
        path=path,
        sha256=sha256,
        images=images,
        categories=categories,
        entries=tuple(raw["annotations"]),
    )


def need(entry: Any, name: str, kind: type[Any] | tuple[type[Any], ...], where: str) -> Any:
    """A field of a JSON object.

    Raises:
        DataError: It is not there, or of another type.
    """
    if not isinstance(entry, dict):
        raise DataError(f"{where}: expected an object, got {_short(entry)}")
    if name not in entry:
        raise DataError(f"{where}: has no {name!r}; it has {some(sorted(entry))}")
    value = entry[name]
    if not isinstance(value, kind) or isinstance(value, bool):
        raise DataError(f"{where}: {name!r} cannot be {_short(value)}")
    return value


def crowd(entry: Mapping[str, Any], where: str) -> bool:
    """Whether the entry is a crowd region; it is not unless it says so.

    Raises:
        DataError: Its "iscrowd" is neither 0 nor 1.
    """
    value = entry.get("iscrowd", 0)
    if value not in (0, 1):
        raise DataError(f"{where}: 'iscrowd' must be 0 or 1, got {_short(value)}")
    return bool(value)


def known_category(entry: Mapping[str, Any], known: Iterable[int], where: str) -> int:
    """The entry's category.

    Raises:
        DataError: The file defines no such category.
    """
    category = need(entry, "category_id", int, where)
    if category not in known:
        raise DataError(f"{where}: category {category} is not among the file's categories")
    return int(category)


class ImageFinder:
    """Finds the file that an annotation calls by a name."""

    def __init__(self, folder: Path) -> None:
        """Looks at nothing yet.

        Raises:
            MissingFile: There is no such folder.
        """
        if not folder.is_dir():
            raise MissingFile(f"{folder}: no such folder of images; name it with --images")
        self.folder = folder
        self._by_stem: dict[str, list[Path]] | None = None

    def find(self, name: str) -> Path:
        """The file itself, or the only one below the folder with that stem.

        Cityscapes' panoptic files name their images without the town's folder and with
        another ending. A file that cannot be found is given as if it were there.
        """
        direct = self.folder / name
        if direct.is_file():
            return direct
        if self._by_stem is None:
            self._by_stem = {}
            for file in sorted(self.folder.rglob("*")):
                if file.suffix.lower() in SUFFIXES:
                    self._by_stem.setdefault(_stem(file.name), []).append(file)
        files = self._by_stem.get(_stem(name), [])
        return files[0] if len(files) == 1 else direct


def _stem(name: str) -> str:
    stem = os.path.splitext(os.path.basename(name))[0]
    for ending in _ENDINGS:
        stem = stem.removesuffix(ending)
    return stem


def _parse(path: Path) -> tuple[dict[str, list[Any]], str]:
    try:
        content = path.read_bytes()
    except OSError as problem:
        raise MissingFile(f"{path}: no such annotation file") from problem
    try:
        raw = json.loads(content)
    except (ValueError, RecursionError) as problem:
        raise DataError(f"{path}: is not JSON ({problem}); copy the file again") from problem
    if not isinstance(raw, dict):
        raise DataError(
            f"{path}: holds a JSON {type(raw).__name__}, COCO's annotations are an object with "
            "'images', 'annotations' and 'categories' (a list is of results, not of truth)"
        )
    for part in ("images", "annotations", "categories"):
        need(raw, part, list, str(path))
    return raw, hashlib.sha256(content).hexdigest()


def _by_id(entries: list[Any], what: str) -> dict[ImageId, Mapping[str, Any]]:
    found: dict[ImageId, Mapping[str, Any]] = {}
    names: dict[str, ImageId] = {}
    for number, entry in enumerate(entries):
        key = need(entry, "id", (int, str), f"{what} {number}")
        name = need(entry, "file_name", str, f"{what} {key!r}")
        if key in found:
            raise DataError(f"{what} id {key!r} is used twice; ids must be unique")
        if name in names:
            raise DataError(f"{what} {key!r} and {names[name]!r} are the same file, {name}")
        found[key], names[name] = entry, key
    return found


def _categories(path: Path, entries: list[Any]) -> tuple[Category, ...]:
    """With the file's colours where it has any; all are things unless it says otherwise."""
    categories: dict[int, Category] = {}
    colours = categories_generic(len(entries))
    for entry, generic in zip(entries, colours, strict=True):
        where = f"{path}: category {entry.get('id') if isinstance(entry, dict) else entry!r}"
        key = need(entry, "id", int, where)
        if key in categories:
            raise DataError(f"{where}: the id is used twice; ids must be unique")
        categories[key] = Category(
            id=key,
            name=need(entry, "name", str, where),
            colour=_colour(entry.get("color")) or generic.colour,
            is_thing=bool(entry.get("isthing", 1)),
        )
    if not categories:
        raise DataError(f"{path}: defines no category")
    return tuple(categories.values())


def _colour(value: Any) -> tuple[int, int, int] | None:
    """Only for pictures, so that a wrong one is no error."""
    if not isinstance(value, list) or len(value) != 3:
        return None
    if not all(isinstance(v, int) and 0 <= v <= 255 for v in value):
        return None
    return value[0], value[1], value[2]


def categories_from_file(path: Path) -> tuple[tuple[Category, ...], str]:
    """Categories of a JSON file that has such a list, or is one; and the file's SHA-256.

    Raises:
        MissingFile: It does not exist.
        DataError: It holds no categories, or ids repeat.
    """
    try:
        content = path.read_bytes()
        raw = json.loads(content)
    except OSError as problem:
        raise MissingFile(f"{path}: no such file of categories") from problem
    except ValueError as problem:
        raise DataError(f"{path}: is not JSON ({problem})") from problem
    entries = raw if isinstance(raw, list) else need(raw, "categories", list, str(path))
    return _categories(path, entries), hashlib.sha256(content).hexdigest()


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
