"""What every data set offers: a list of images, and the ground truth of each on demand."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from m2f.config import Category, Task
from m2f.errors import DataError, MissingFile
from m2f.evaluate.truth import Truth

SHOWN = 5
"""How many of many wrong things a message names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One image and where its ground truth is.

    Attributes:
        key: Tells it from all others of the data set.
        image: Its file.
        label: The PNG with its ground truth, where there is one.
    """

    key: str
    image: Path
    label: Path | None = None


class DataSet(Protocol):
    """Images with ground truth; nothing is held in memory but the annotations."""

    @property
    def name(self) -> str:
        """For people."""

    @property
    def tasks(self) -> tuple[Task, ...]:
        """What its annotations can judge."""

    @property
    def categories(self) -> tuple[Category, ...]:
        """In the order of the indices of a `SemanticTruth`."""

    @property
    def items(self) -> Sequence[Item]:
        """Always in the same order."""

    @property
    def fingerprint(self) -> str:
        """Changes with the annotations and the list of images."""

    def of_model(self, categories: tuple[Category, ...]) -> DataSet:
        """This data set; one without categories of its own takes the model's."""

    def truth(self, item: Item) -> Truth:
        """Reads the ground truth of one image.

        Raises:
            DataError: It is wrong in itself.
            MissingFile: A file is gone.
        """


def check_files(items: Iterable[Item]) -> None:
    """Looks for every file before hours are spent on the first ones.

    Raises:
        MissingFile: Images or label files do not exist; says how many, and some of them.
    """
    files = [file for item in items for file in (item.image, item.label) if file is not None]
    missing = [str(file) for file in files if not file.is_file()]
    if missing:
        raise MissingFile(
            f"{len(missing)} of {len(files)} files of the data set do not exist: "
            f"{some(missing)}; check the folders given"
        )


def read_png(path: Path) -> NDArray[Any]:
    """The pixels of a label image as stored: palette indices stay indices.

    Returns:
        [H, W] or [H, W, channels].

    Raises:
        DataError: It is not an image, or damaged.
        MissingFile: It does not exist.
    """
    try:
        with Image.open(path) as picture:
            array = np.asarray(picture)
    except FileNotFoundError as problem:
        raise MissingFile(f"{path}: no such label image") from problem
    except UnidentifiedImageError as problem:
        raise DataError(
            f"{path}: is not an image ({path.stat().st_size} bytes); copy the label image again"
        ) from problem
    except (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error) as problem:
        raise DataError(
            f"{path}: is damaged ({problem}); copy the label image again"
        ) from problem
    return array.astype(np.uint8) if array.dtype == np.bool_ else array


def some(things: Sequence[object]) -> str:
    """The first few, and how many more there are."""
    text = ", ".join(map(str, things[:SHOWN]))
    return text + (f" and {len(things) - SHOWN} more" if len(things) > SHOWN else "")
