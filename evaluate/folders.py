"""Semantic data sets: a folder of images and one of label images with class values."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from m2f.config import Category, Task
from m2f.errors import DataError, MissingFile, UsageError
from m2f.evaluate.annotations import categories_from_file
from m2f.evaluate.dataset import Item, read_png, some
from m2f.evaluate.truth import UNLABELLED, SemanticTruth
from m2f.models.categories import ADE20K, CITYSCAPES, MAPILLARY_SEMANTIC
from m2f.runtime.images import SUFFIXES

_LABEL_SUFFIXES = frozenset((".png", ".bmp", ".tif", ".tiff"))
_UNKNOWN = -2


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelConvention:
    """What the values of label images mean.

    Attributes:
        categories: None where they are the model's.
        values: Pixel value of each category; None where it is the model's id or index.
        void: Values that are not evaluated.
        image_ending: What image names have beyond the part shared with labels.
        label_ending: What label names have; other files of the folder are passed over.
    """

    name: str
    categories: tuple[Category, ...] | None
    values: tuple[int, ...] | None
    void: frozenset[int] = frozenset((255,))
    image_ending: str = ""
    label_ending: str = ""


def _cityscapes(
    name: str, ending: str, values: Sequence[int], void: Collection[int]
) -> LabelConvention:
    return LabelConvention(
        name=name,
        categories=CITYSCAPES,
        values=tuple(values),
        void=frozenset(void),
        image_ending="_leftImg8bit",
        label_ending=ending,
    )


_CITYSCAPES_IDS = tuple(c.id for c in CITYSCAPES)

CONVENTIONS: Mapping[str, LabelConvention] = {
    c.name: c
    for c in (
        # 0 is "other objects": https://github.com/CSAILVision/placeschallenge, sceneparsing
        LabelConvention(
            name="ade20k",
            categories=ADE20K,
            values=tuple(range(1, 151)),
            void=frozenset((0,)),
        ),
        # As detectron2's preparation script writes them ("reduce zero").
        LabelConvention(name="ade20k-reduced", categories=ADE20K, values=tuple(range(150))),
        _cityscapes("cityscapes-trainids", "_gtFine_labelTrainIds", range(19), (255,)),
        # labels.py of cityscapesScripts: 34 ids, of which 19 are evaluated.
        _cityscapes(
            "cityscapes-labelids",
            "_gtFine_labelIds",
            _CITYSCAPES_IDS,
            set(range(34)).difference(_CITYSCAPES_IDS),
        ),
        # Vistas v1.2: 65 is "Unlabeled".
        LabelConvention(
            name="mapillary",
            categories=MAPILLARY_SEMANTIC,
            values=tuple(range(65)),
            void=frozenset((65,)),
        ),
        LabelConvention(name="ids", categories=None, values=None),
        LabelConvention(name="indices", categories=None, values=None),
    )
}
"""By name. "ids" and "indices" are the model's own category ids and class indices."""


@dataclass(frozen=True, slots=True, eq=False)
class SemanticFolders:
    """Images and label images, paired by name."""

    images: Path
    labels: Path
    convention: LabelConvention
    items: tuple[Item, ...]
    tasks: tuple[Task, ...] = ("semantic",)

    @classmethod
    def open(
        cls, images: Path, labels: Path, convention: str, *, ignore: int | None = None
    ) -> SemanticFolders:
        """Pairs the files.

        Args:
            images: Folder of the images; those of folders in it, too.
            labels: Folder of the label images, with the same names but for the suffix (and
                Cityscapes' endings).
            convention: One of `CONVENTIONS`, or a JSON file with "categories" whose ids are
                the pixel values.
            ignore: Pixel value that is not evaluated, instead of the convention's own.

        Raises:
            MissingFile: A folder does not exist, holds no such file, or files have no partner.
            UsageError: There is no such convention.
            DataError: Two files have the same name.
        """
        rule = _convention(convention)
        if ignore is not None:
            rule = replace(rule, void=frozenset((ignore,)))
        left = _files(images, SUFFIXES, rule.image_ending, "images")
        right = _files(labels, _LABEL_SUFFIXES, rule.label_ending, "label images")
        unlabelled, orphans = (
            sorted(left.keys() - right.keys()),
            sorted(right.keys() - left.keys()),
        )
        if unlabelled or orphans:
            raise MissingFile(
                f"{len(unlabelled)} of {len(left)} images in {images} have no label image in "
                f"{labels} ({some(unlabelled) or 'none'}), and {len(orphans)} of {len(right)} "
                f"label images have no image ({some(orphans) or 'none'})"
            )
        items = tuple(Item(key=key, image=left[key], label=right[key]) for key in sorted(left))
        return cls(images, labels, rule, items)

    @property
    def name(self) -> str:
        """The label folder's name and the convention's."""
        return f"{self.labels.name} ({self.convention.name})"

    @property
    def categories(self) -> tuple[Category, ...]:
        """The convention's; none before `of_model` where they are the model's."""
        return self.convention.categories or ()

    @property
    def fingerprint(self) -> str:
        """Of the convention and the names of all files."""
        rule = self.convention
        void = sorted(rule.void)
        categories = [(c.id, c.name) for c in self.categories]
        keys = [item.key for item in self.items]
        parts = ["semantic", rule.name, rule.values, void, categories, keys]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    def of_model(self, categories: tuple[Category, ...]) -> SemanticFolders:
        """With the model's categories where the convention has none of its own.

        Raises:
            UsageError: A category's value is also the one to ignore.
        """
        rule = self.convention
        if rule.categories is None or rule.values is None:
            values = [c.id if rule.name == "ids" else i for i, c in enumerate(categories)]
            rule = replace(rule, categories=categories, values=tuple(values))
        assert rule.categories is not None
        assert rule.values is not None
        both = [
            c.name for c, v in zip(rule.categories, rule.values, strict=True) if v in rule.void
        ]
        if both:
            raise UsageError(
                f"the value to ignore, {some(sorted(rule.void))}, is also that of the "
                f"category {some(both)}; pass another --ignore"
            )
        return replace(self, convention=rule)

    def truth(self, item: Item) -> SemanticTruth:
        """Reads one label image.

        Raises:
            DataError: It is damaged, has several channels, or values without a meaning.
            MissingFile: It does not exist.
        """
        assert item.label is not None
        assert self.convention.values is not None
        array = read_png(item.label)
        if array.ndim != 2 or not np.issubdtype(array.dtype, np.integer):
            raise DataError(
                f"{item.label}: a label image has one channel of class values, this one is "
                f"{array.dtype} {'x'.join(map(str, array.shape))} (a picture in colours?)"
            )
        low, high = int(array.min()), int(array.max())
        known = [*self.convention.values, *self.convention.void]
        table = np.full(max(*known, high, 0) + 1 if high < 1 << 20 else 0, _UNKNOWN, np.int32)
        if low < 0 or not len(table):
            raise DataError(f"{item.label}: values from {low} to {high} are no class values")
        for value in self.convention.void:
            table[value] = UNLABELLED
        table[list(self.convention.values)] = np.arange(len(self.convention.values))
        labels = table[array]
        if (labels == _UNKNOWN).any():
            strange = np.unique(array[labels == _UNKNOWN]).tolist()
            raise DataError(
                f"{item.label}: has values {some(strange)}, to which {self.convention.name!r} "
                "gives no meaning; choose another --labels, or say which to --ignore"
            )
        return SemanticTruth(labels=labels)


def _convention(name: str) -> LabelConvention:
    if name in CONVENTIONS:
        return CONVENTIONS[name]
    if name.endswith(".json"):
        categories, _ = categories_from_file(Path(name))
        return LabelConvention(
            name=Path(name).name, categories=categories, values=tuple(c.id for c in categories)
        )
    raise UsageError(
        f"no label convention is called {name!r}; there are {', '.join(CONVENTIONS)}, or name "
        "a JSON file with categories"
    )


def _files(folder: Path, suffixes: frozenset[str], ending: str, what: str) -> dict[str, Path]:
    """Files by their path in the folder, without suffix and ending.

    Where any file has the ending, those without it are something else (Cityscapes keeps
    colours and instance ids beside the labels).
    """
    if not folder.is_dir():
        raise MissingFile(f"{folder}: no such folder of {what}")
    files = [f for f in sorted(folder.rglob("*")) if f.suffix.lower() in suffixes]
    if ending and any(f.stem.endswith(ending) for f in files):
        files = [f for f in files if f.stem.endswith(ending)]
    if not files:
        raise MissingFile(f"{folder}: holds no {what}")
    found: dict[str, Path] = {}
    for file in files:
        key = file.relative_to(folder).with_name(file.stem.removesuffix(ending)).as_posix()
        if key in found:
            raise DataError(
                f"{file} and {found[key]} differ only in their suffix; keep one of them"
            )
        found[key] = file
    return found
