"""The boundary of a mask, for Boundary IoU.

Cheng et al., Boundary IoU, CVPR 2021: the pixels of a mask that lie within d pixels of its
contour, d being 2 % of the image's diagonal; the image's border is contour, too. The metric
of an object is min(mask IoU, boundary IoU), and AP is then formed as always.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from m2f.runtime.masks import Mask, box_of

DILATION_RATIO = 0.02
"""d by the image's diagonal; section 4 of the paper."""


def boundary(mask: Mask, *, ratio: float = DILATION_RATIO) -> Mask:
    """Pixels of the mask that d erosions with a 3x3 square would remove.

    d erosions by 3x3 are one by (2d + 1)^2, and that is two in one dimension each.

    Args:
        mask: bool [H, W].
        ratio: d in diagonals of the image; d is at least one pixel.
    """
    height, width = mask.shape
    d = max(1, round(ratio * float(np.sqrt(height * height + width * width))))
    x, y, w, h = box_of(mask)
    rim = np.zeros_like(mask)
    if w:
        part = mask[y : y + h, x : x + w]
        rim[y : y + h, x : x + w] = part & ~_eroded(_eroded(part, d).T, d).T
    return rim


def _eroded(mask: Mask, d: int) -> Mask:
    """Pixels whose d neighbours above and below are set as well; outside nothing is."""
    n, side = mask.shape[0], 2 * d + 1
    sums = np.zeros((n + side, mask.shape[1]), np.int32)
    np.cumsum(mask, axis=0, out=sums[d + 1 : d + 1 + n])
    sums[d + 1 + n :] = sums[d + n]
    full: NDArray[np.bool_] = sums[side:] - sums[:-side] == side
    return full
