"""From decoded images to the network's input: the size rules, the resizes, and the batch.

Normalisation and padding to multiples of 32 are not here; they are part of the network.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import PIL
from numpy.typing import NDArray
from PIL import Image

from m2f.bundle import InputProfile
from m2f.config import SIZE_DIVISOR, Preprocess
from m2f.errors import ShapeError
from m2f.runtime import native
from m2f.runtime.images import Pixels
from m2f.runtime.resample import between

Size = tuple[int, int]
_PILLOW_MAJOR = int(PIL.__version__.split(".")[0])


@dataclass(frozen=True, slots=True, eq=False)
class Prepared:
    """One image and what the network gets of it. It is resized when it is written.

    Attributes:
        image: As decoded, uint8 [H, W, 3].
        size: Height and width at the network's resolution.
        antialias: Whether it is resized as Pillow does, or from the four nearest pixels.
    """

    image: Pixels
    size: Size
    antialias: bool = True

    @property
    def original(self) -> Size:
        """H, W of the image."""
        return self.image.shape[0], self.image.shape[1]

    @property
    def rows_first(self) -> bool:
        """Whether Pillow makes rows fewer before columns: the order decides a gray level."""
        return self.antialias and _is_row_first(self.original, self.size)

    @property
    def pixels(self) -> Pixels:
        """At the network's resolution, uint8 [h, w, 3]; the image itself if it has that."""
        if self.size == self.original:
            return self.image
        out = np.empty((*self.size, 3), np.uint8)
        self.write(out)
        return out

    def write(self, out: Pixels, *, threads: int | None = None) -> None:
        """Resizes it into the top left of ``out``, in one pass, and makes the rest zero.

        Args:
            out: uint8, contiguous, at least as large as ``size``.
            threads: CPU cores to use; all unless given.
        """
        library = native.library(threads)
        h, w = self.size
        pixels = self.image
        if library is not None:
            if self.rows_first:
                pixels = np.empty((h, pixels.shape[1], 3), np.uint8)
                library.resize(self.image, pixels.shape[:2], pixels, antialias=True)
            library.resize(pixels, self.size, out, antialias=self.antialias)
            return
        if self.size != self.original:
            pixels = (_antialiased if self.antialias else _linear)(pixels, self.size)
        out[:h, :w] = pixels
        out[h:], out[:h, w:] = 0, 0


def target_size(original: Size, rules: Preprocess) -> Size:
    """The size a rule gives an image, each side at least one pixel.

    Args:
        original: Height and width.
        rules: See `Preprocess.resize`. "shortest_edge" rounds as detectron2's
            ResizeShortestEdge, "hf_aspect" as transformers' processor with
            ``size_divisor`` 32, "mmdet" as mmcv's ``imrescale``.
    """
    height, width = original
    if rules.resize == "none":
        return original
    if rules.resize == "stretch":
        return rules.size if rules.size is not None else (rules.min_size, rules.min_size)
    if rules.resize == "hf_aspect":
        h, w = _hf_aspect(height, width, rules)
        return _up_to_divisor(max(h, 1)), _up_to_divisor(max(w, 1))
    if rules.resize == "mmdet":
        scale = min(rules.max_size / max(height, width), rules.min_size / min(height, width))
        h, w = int(height * scale + 0.5), int(width * scale + 0.5)
    else:
        h, w = _shortest_edge(height, width, rules)
    return max(h, 1), max(w, 1)


def prepare(image: Pixels, rules: Preprocess, profile: InputProfile | None = None) -> Prepared:
    """Decides what the network gets of one image.

    Within the profile the rule decides. An image that would be larger is made smaller until
    it fits, aspect kept; "stretch" ignores the aspect anyway and goes to the nearest size
    allowed.

    Args:
        image: uint8 [H, W, 3].
        rules: The bundle's preprocessing.
        profile: Sizes the network takes; any, unless given.

    Raises:
        ShapeError: The rule is "none" and the image is larger than the profile.
    """
    original = (image.shape[0], image.shape[1])
    size = target_size(original, rules)
    if profile is not None:
        size = _within(size, rules, profile)
    return Prepared(image, size, antialias=rules.resize != "mmdet")


def padded_size(images: Sequence[Prepared], profile: InputProfile | None = None) -> Size:
    """Height and width of the batch that images make.

    Args:
        images: At least one.
        profile: Raises both to its least ones.
    """
    height = max(image.size[0] for image in images)
    width = max(image.size[1] for image in images)
    if profile is None:
        return height, width
    return max(height, profile.height.min), max(width, profile.width.min)


def assemble(
    images: Sequence[Prepared],
    profile: InputProfile | None = None,
    *,
    out: NDArray[np.uint8] | None = None,
    threads: int | None = None,
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Puts images of different sizes into one batch, padded with zeros right and below.

    Args:
        images: At least one.
        profile: Raises the batch's height and width to its least ones.
        out: Memory for the batch, contiguous; its height and width may be larger than needed.
            New memory unless given.
        threads: CPU cores to use; all unless given.

    Returns:
        uint8 [N, H, W, 3], and the valid height and width of each image, int64 [N, 2].

    Raises:
        ShapeError: ``out`` has no room.
    """
    sizes = np.array([i.size for i in images], np.int64)
    height, width = padded_size(images, profile)
    if out is None:
        out = np.empty((len(images), height, width, 3), np.uint8)
    elif len(out) != len(images) or out.shape[1] < height or out.shape[2] < width:
        raise ShapeError(
            f"a batch of {len(images)}x{height}x{width} does not fit memory of "
            f"{'x'.join(map(str, out.shape[:3]))}"
        )
    for i, image in enumerate(images):
        if i > 0 and image is images[i - 1]:  # a batch that had to be filled up
            out[i] = out[i - 1]
        else:
            image.write(out[i], threads=threads)
    return out, sizes


def _shortest_edge(height: int, width: int, rules: Preprocess) -> Size:
    # The order of operations is detectron2's: rounding at .5 depends on it.
    scale = rules.min_size / min(height, width)
    short, long = float(rules.min_size), scale * max(height, width)
    if long > rules.max_size:
        shrink = rules.max_size / long
        short, long = short * shrink, long * shrink
    near, far = int(short + 0.5), int(long + 0.5)
    return (near, far) if height < width else (far, near)


def _hf_aspect(height: int, width: int, rules: Preprocess) -> Size:
    short, long = min(height, width), max(height, width)
    near, exact = rules.min_size, float(rules.min_size)
    if long / short * near > rules.max_size:
        exact = rules.max_size * short / long
        near = round(exact)
    if near == short:
        return height, width
    far = int(exact * long / short)
    return (near, far) if height < width else (far, near)


def _up_to_divisor(side: int) -> int:
    return -(-side // SIZE_DIVISOR) * SIZE_DIVISOR


def _within(size: Size, rules: Preprocess, profile: InputProfile) -> Size:
    (h, w), rows, columns = size, profile.height, profile.width
    if rules.resize == "stretch":
        return min(max(h, rows.min), rows.max), min(max(w, columns.min), columns.max)
    scale = min(rows.max / h, columns.max / w)
    if scale >= 1:
        return size
    if rules.resize == "none":
        raise ShapeError(
            f"the image is {h}x{w}, the bundle takes at most {rows.max}x{columns.max} and "
            "resizes nothing; cut it into tiles or export with a larger size"
        )
    fitted = max(1, int(h * scale + 0.5)), max(1, int(w * scale + 0.5))
    return min(fitted[0], rows.max), min(fitted[1], columns.max)


def _antialiased(image: Pixels, size: Size) -> Pixels:
    """Pillow's bilinear: a triangle as wide as the shrinking asks.

    detectron2's own; transformers' torchvision one is within one gray level of it.
    """
    resized = Image.fromarray(image).resize((size[1], size[0]), Image.Resampling.BILINEAR)
    return np.asarray(resized)


def _is_row_first(source: Size, target: Size) -> bool:
    """What this Pillow does.

    Since version 13 it does where the height loses over twice what the width does
    (python-pillow/Pillow#9549); before, never, but for 12's images over 100 times as high as
    wide.
    """
    lost = source[0] - target[0], source[1] - target[1]
    return _PILLOW_MAJOR >= 13 and lost[0] > 0 and lost[0] > 2 * lost[1]


def _linear(image: Pixels, size: Size) -> Pixels:
    """Bilinear from the four nearest pixels, as OpenCV's INTER_LINEAR to one gray level."""
    resampler = between((image.shape[0], image.shape[1]), size)
    out = np.empty((*size, 3), np.uint8)
    planes = image.transpose(2, 0, 1)
    for part in resampler.parts(3):
        window = resampler.rows.window(part)
        rows = resampler.resize(
            planes[:, window].astype(np.float32), part, first_row=window.start
        )
        out[part] = (rows + np.float32(0.5)).astype(np.uint8).transpose(1, 2, 0)
    return out
