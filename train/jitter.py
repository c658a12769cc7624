"""Large-scale jittering (Ghiasi et al., CVPR 2021): the paper's augmentation, section 4.1.

An image is scaled to a random share of what just fits the crop, mirrored half of the time,
and cropped or padded to the crop's size.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from m2f.config import SIZE_DIVISOR
from m2f.errors import UsageError

Plane = npt.NDArray[Any]
Size = tuple[int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Jitter:
    """How images are varied.

    Attributes:
        crop: Height and width that the network sees, pixels, multiples of 32. The paper's
            1024 x 1024 is much for a CPU.
        scale: Least and most share of the size that just fits the crop.
        flip: Mirror every other image.
    """

    crop: Size = (256, 256)
    scale: tuple[float, float] = (0.1, 2.0)
    flip: bool = True

    def __post_init__(self) -> None:
        h, w = self.crop
        if min(h, w) < SIZE_DIVISOR or h % SIZE_DIVISOR or w % SIZE_DIVISOR:
            raise UsageError(
                f"the crop must be of multiples of {SIZE_DIVISOR} pixels, got {h}x{w}"
            )
        if not 0 < self.scale[0] <= self.scale[1]:
            raise UsageError(
                "the scale must run from above 0 to at least as much, got "
                f"{self.scale[0]:g}:{self.scale[1]:g}"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """One way to see an image.

    Attributes:
        size: Height and width that the image is resized to.
        box: Left, top, right and bottom of what is then kept, no larger than the crop.
        is_flipped: Mirrored after that.
    """

    size: Size
    box: tuple[int, int, int, int]
    is_flipped: bool

    @property
    def shape(self) -> Size:
        """Height and width of the result."""
        left, top, right, bottom = self.box
        return bottom - top, right - left

    def image(self, image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """Sees an image, uint8 [H, W, 3]."""
        return self._seen(image, Image.Resampling.BILINEAR)

    def plane(self, plane: Plane) -> Plane:
        """Sees a map of numbers, uint8 or int32 [H, W]; no number is made up."""
        return self._seen(plane, Image.Resampling.NEAREST)

    def _seen(self, array: Plane, rule: Image.Resampling) -> Plane:
        resized = Image.fromarray(array).resize(self.size[::-1], rule)
        seen = np.asarray(resized.crop(self.box))
        return seen[:, ::-1] if self.is_flipped else seen


def draw_view(rng: np.random.Generator, jitter: Jitter, size: Size) -> View:
    """Chooses how to see an image of a height and width."""
    height, width = jitter.crop
    scale = min(height / size[0], width / size[1]) * rng.uniform(*jitter.scale)
    h, w = max(round(size[0] * scale), 1), max(round(size[1] * scale), 1)
    top = int(rng.integers(max(h - height, 0) + 1))
    left = int(rng.integers(max(w - width, 0) + 1))
    box = (left, top, min(left + width, w), min(top + height, h))
    return View(size=(h, w), box=box, is_flipped=bool(jitter.flip and rng.random() < 0.5))
