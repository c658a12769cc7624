"""The images to calibrate on: enough of them, and not all the same."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from m2f.bundle import InputProfile, sha256_of
from m2f.config import Preprocess
from m2f.errors import DataError, UsageError
from m2f.runtime.images import decode, find_images
from m2f.runtime.preprocess import assemble, prepare

LEAST = 8
"""Different images without which no range means anything."""

ADVISED = 100
"""Fewer than so many are remarked upon: TensorRT's guide and ONNX Runtime's advise hundreds."""


@dataclass(frozen=True, slots=True)
class Picture:
    """One image file.

    Attributes:
        sha256: Of the file.
    """

    path: Path
    sha256: str


class Fed(NamedTuple):
    """One image as the network takes it: uint8 [N, H, W, 3], valid sizes int64 [N, 2]."""

    image: NDArray[np.uint8]
    image_size: NDArray[np.int64]


def pictures(
    paths: Iterable[str | PathLike[str]], *, limit: int | None = None
) -> list[Picture]:
    """Finds images and says whether they can serve.

    Args:
        paths: Files, folders and glob patterns.
        limit: Take only so many: always the same ones, and more with a larger limit.

    Raises:
        MissingFile: A path does not exist, or nothing was found.
        UsageError: The limit leaves too few.
        DataError: There are too few different ones.
    """
    files = find_images(paths)
    if limit is not None:
        if limit < LEAST:
            raise UsageError(f"a limit of {limit} images is too few; ranges need {LEAST}")
        # Neighbours in a folder are often alike, so not the first ones.
        files = sorted(files, key=lambda file: hashlib.sha256(file.name.encode()).digest())
        files = files[:limit]
    found = [Picture(file, sha256_of(file)) for file in files]
    different = len({picture.sha256 for picture in found})
    if different < LEAST:
        same = f", of which {different} are different" if different < len(found) else ""
        raise DataError(
            f"{len(found)} images{same}, where calibration needs {LEAST} different ones at "
            f"least, better {ADVISED} or more; give images like those the model is to see"
        )
    return found


class Feeder:
    """Prepares images exactly as a session does.

    Args:
        preprocess: The bundle's.
        profile: The sizes it takes.
    """

    def __init__(self, preprocess: Preprocess, profile: InputProfile) -> None:
        self.preprocess, self.profile = preprocess, profile

    def __call__(self, path: Path) -> Fed:
        """One image, repeated to the network's least batch.

        Raises:
            ImageError: It cannot be used.
            MissingFile: It is gone.
        """
        prepared = prepare(decode(path), self.preprocess, self.profile)
        return Fed(*assemble([prepared] * self.profile.batch.min, self.profile))


def fingerprint(fed: Fed) -> str:
    """Of what the network is shown."""
    return hashlib.sha256(fed.image.tobytes()).hexdigest()
