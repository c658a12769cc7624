"""Images in: files, Pillow images and arrays become one thing, uint8 [H, W, 3] RGB.

No resizing here; `m2f.runtime.preprocess` decides sizes.
"""

from __future__ import annotations

import glob
import os
import struct
import warnings
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from m2f.errors import ImageError, MissingFile

Pixels: TypeAlias = NDArray[np.uint8]
Source: TypeAlias = str | os.PathLike[str] | Image.Image | NDArray[Any]

MAX_PIXELS = 178_956_970
"""Largest image accepted, H*W: 0.5 GiB as RGB, and the limit from which Pillow itself
refuses to open a file (twice ``PIL.Image.MAX_IMAGE_PIXELS``)."""

SUFFIXES = frozenset(
    (".avif", ".bmp", ".gif", ".jp2", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp")
)
"""What `find_images` takes from a folder. A file named directly may have any suffix."""

# What Pillow's readers raise on damaged files, beside its own OSError subclasses.
_DAMAGE = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    IndexError,
    KeyError,
    TypeError,
    OverflowError,
    struct.error,
    zlib.error,
)


def decode(source: Source) -> Pixels:
    """Reads one image.

    Files and Pillow images are turned as their EXIF orientation says; of animations the
    first frame is taken. Palette, gray, CMYK and YCbCr become RGB; transparency is dropped,
    not blended (as Pillow's ``convert("RGB")``). 16-bit gray is scaled by 255/65535, not
    clipped.

    Args:
        source: A path; a Pillow image; or an array, uint8 or uint16, [H, W] gray,
            [H, W, 1] gray, [H, W, 3] RGB or [H, W, 4] RGBA.

    Returns:
        uint8 [H, W, 3], RGB, contiguous.

    Raises:
        ImageError: Not an image, damaged, without pixels, above `MAX_PIXELS`, or an array
            of another shape or type.
        MissingFile: The path does not exist or cannot be read.
    """
    if isinstance(source, np.ndarray):
        return _rgb_from_array(source)
    if isinstance(source, Image.Image):
        _check_size(source.height, source.width, "the image")
        try:
            return _rgb_from_pillow(source, "the image")
        except _DAMAGE as problem:
            raise ImageError(f"the image cannot be decoded: {problem}") from problem
    if isinstance(source, (str, os.PathLike)):
        return _rgb_from_file(Path(source))
    raise ImageError(
        f"an image must be a path, a Pillow image or a NumPy array, got {type(source).__name__}"
    )


def find_images(paths: Iterable[str | os.PathLike[str]]) -> list[Path]:
    """Lists the image files that folders, glob patterns and file names stand for.

    Args:
        paths: Files are taken as they are; of a folder, the files with one of `SUFFIXES`
            directly in it; a pattern may hold ``*``, ``?``, ``[...]`` and ``**``.

    Returns:
        Each file once, in the order of ``paths``, sorted within a folder or pattern.

    Raises:
        MissingFile: A path does not exist, a folder holds no image, or a pattern matches
            none.
    """
    found: dict[Path, None] = {}
    for given in paths:
        path = Path(given)
        if path.is_dir():
            files = _images_in(path)
        elif path.exists():
            files = [path]
        elif glob.has_magic(os.fspath(given)):
            matches = sorted(glob.glob(os.fspath(given), recursive=True))
            files = [Path(m) for m in matches if _is_image(Path(m))]
            if not files:
                raise MissingFile(
                    f"{given}: {len(matches)} paths match this pattern, none of them an image "
                    f"({', '.join(sorted(SUFFIXES))})"
                )
        else:
            raise MissingFile(f"{given}: no such file or folder")
        found.update(dict.fromkeys(files))
    if not found:
        raise MissingFile("no image was named; give files, folders or patterns")
    return list(found)


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and path.is_file()


def _images_in(folder: Path) -> list[Path]:
    try:
        entries = sorted(folder.iterdir())
    except OSError as problem:
        raise MissingFile(f"{folder}: cannot be read: {problem.strerror}") from problem
    files = [entry for entry in entries if _is_image(entry)]
    if not files:
        raise MissingFile(
            f"{folder}: none of its {len(entries)} entries is an image "
            f"({', '.join(sorted(SUFFIXES))})"
        )
    return files


def _rgb_from_file(path: Path) -> Pixels:
    if path.is_dir():
        raise ImageError(f"{path} is a folder, not an image; name the files in it")
    try:
        # Pillow warns from half its limit on; ours is the limit at which it refuses.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(path)
    except FileNotFoundError as problem:
        raise MissingFile(f"{path}: no such file") from problem
    except PermissionError as problem:
        raise MissingFile(f"{path}: permission denied") from problem
    except UnidentifiedImageError as problem:
        size = path.stat().st_size
        what = "is empty" if size == 0 else "is not an image of a known format"
        raise ImageError(f"{path} {what} ({size} bytes); give a JPEG, PNG, ...") from problem
    except Image.DecompressionBombError as problem:
        raise ImageError(_too_large(str(path), "")) from problem
    except _DAMAGE as problem:
        raise ImageError(f"{path} cannot be decoded: {problem}") from problem
    with image:
        _check_size(image.height, image.width, str(path))
        try:
            return _rgb_from_pillow(image, str(path))
        except _DAMAGE as problem:
            raise ImageError(
                f"{path} cannot be decoded (truncated or damaged): {problem}"
            ) from problem


def _rgb_from_pillow(image: Image.Image, what: str) -> Pixels:
    image.load()
    image = _upright(image)
    if image.mode == "F":
        raise ImageError(f"{what} has floating-point pixels; convert it to 8 bit first")
    if image.mode.startswith("I"):  # 16- and 32-bit gray
        return _rgb_from_array(_uint16_from_gray(np.asarray(image), what))
    if image.mode == "P":
        image = image.convert("RGBA")  # RGB at once would warn about transparency
    return np.ascontiguousarray(np.asarray(image.convert("RGB")))


def _upright(image: Image.Image) -> Image.Image:
    """Turns the image as EXIF says; damaged EXIF, which viewers ignore too, turns nothing."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            return ImageOps.exif_transpose(image)
    except _DAMAGE:
        return image


def _uint16_from_gray(gray: NDArray[Any], what: str) -> NDArray[np.uint16]:
    """Pillow's "I" holds 16-bit PNGs as int32; a range beyond 16 bits has no known scale."""
    low, high = int(gray.min()), int(gray.max())
    if low < 0 or high > 65535:
        raise ImageError(
            f"{what} has pixels from {low} to {high}, of which only 0..65535 can be used; "
            "convert it to 8 or 16 bit first"
        )
    return gray.astype(np.uint16)


def _rgb_from_array(array: NDArray[Any]) -> Pixels:
    shape = "x".join(map(str, array.shape))
    if array.dtype not in (np.uint8, np.uint16):
        raise ImageError(
            f"an image array must be uint8 (0..255), got {array.dtype} {shape}; "
            "scale and convert it first"
        )
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (1, 3, 4)):
        raise ImageError(
            f"an image array must be HxW, HxWx1, HxWx3 or HxWx4, got {shape or 'a scalar'}; "
            "channels come last, and a batch is a list of images"
        )
    _check_size(array.shape[0], array.shape[1], "the image array")
    if array.dtype == np.uint16:
        # round(v * 255 / 65535) = round(v / 257) in integers
        array = ((array.astype(np.uint32) + 128) // 257).astype(np.uint8)
    if array.ndim == 2:
        array = array[:, :, None]
    if array.shape[2] == 1:
        array = np.repeat(array, 3, axis=2)
    return np.ascontiguousarray(array[:, :, :3])


def _check_size(height: int, width: int, what: str) -> None:
    if height < 1 or width < 1:
        raise ImageError(f"{what} has no pixels: {height}x{width}")
    if height * width > MAX_PIXELS:
        raise ImageError(_too_large(what, f" {height}x{width},"))


def _too_large(what: str, size: str) -> str:
    return (
        f"{what} is too large:{size} more than {MAX_PIXELS} pixels; "
        "cut it into tiles or make it smaller"
    )
