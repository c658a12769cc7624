"""Probabilities from logits, in float32 and stable for any finite input; and where they lie."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from m2f.errors import CheckFailed, ShapeError
from m2f.runtime.native import Library, Masks
from m2f.runtime.resample import Float, Resampler, between


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """Sizes (height, width) in pixels between mask logits and the image they are about.

    Attributes:
        padded: The network's input with all padding; what the whole mask stands for.
        valid: The part of it, from the top left, that shows the image.
        output: The original image.
    """

    padded: tuple[int, int]
    valid: tuple[int, int]
    output: tuple[int, int]

    def __post_init__(self) -> None:
        for padded, valid, output in zip(self.padded, self.valid, self.output, strict=True):
            if not (1 <= valid <= padded and output >= 1):
                raise ShapeError(
                    f"the valid part {self.valid} must lie within the padded {self.padded}, "
                    f"and the output {self.output} must have pixels"
                )

    def to_valid(self, masks: tuple[int, int]) -> Resampler:
        """From mask resolution to the valid part at the network's resolution."""
        whole = between(masks, self.padded)
        return Resampler(whole.rows[: self.valid[0]], whole.columns[: self.valid[1]])

    def to_output(self, masks: tuple[int, int]) -> Resampler:
        """From mask resolution by way of the network's resolution to the original image."""
        return between(self.valid, self.output).after(self.to_valid(masks))

    def extent(self, masks: tuple[int, int]) -> tuple[float, float]:
        """How much of the mask, in its own pixels, the valid part takes."""
        return (
            masks[0] * self.valid[0] / self.padded[0],
            masks[1] * self.valid[1] / self.padded[1],
        )


def check(
    class_logits: NDArray[Any], mask_logits: Masks, library: Library | None = None
) -> None:
    """Checks one image's network outputs, [Q, K + 1] and [Q, h, w].

    Raises:
        ShapeError: The two do not belong together.
        CheckFailed: They hold NaN or infinity, which no segment can come from.
    """
    c, m = class_logits.shape, mask_logits.shape
    if len(c) != 2 or len(m) != 3 or c[0] != m[0] or c[1] < 2:
        raise ShapeError(f"class logits [Q, K + 1] and mask logits [Q, h, w] are {c} and {m}")
    for name, array in (("class", class_logits), ("mask", mask_logits)):
        bad = _count_not_finite(array, library)
        if bad:
            raise CheckFailed(
                f"{bad} of {array.size} {name} logits are NaN or infinite; the weights or the "
                "precision are broken: compare with the checkpoint (`m2f check`)"
            )


def _count_not_finite(array: Masks, library: Library | None) -> int:
    is_native = not isinstance(array, np.ndarray) or (
        array.dtype == np.float32 and array.flags.c_contiguous
    )
    if library is not None and is_native:
        return library.count_not_finite(array)
    # A sum is finite iff its terms are, short of overflow, and costs one pass.
    if np.isfinite(array.sum(dtype=np.float64)):
        return 0
    return int(array.size - np.isfinite(array).sum())


def softmax(logits: NDArray[Any]) -> Float:
    """Class probabilities along the last axis, float32."""
    logits = logits.astype(np.float32)
    logits -= logits.max(axis=-1, keepdims=True)
    np.exp(logits, out=logits)
    logits /= logits.sum(axis=-1, keepdims=True)
    return logits


def sigmoid_(logits: Float) -> Float:
    """1 / (1 + exp(-x)), in place. exp may overflow to infinity, which rightly gives 0."""
    np.negative(logits, out=logits)
    with np.errstate(over="ignore"):
        np.exp(logits, out=logits)
    logits += 1
    return np.reciprocal(logits, out=logits)


def argmax_planes(planes: Float) -> NDArray[np.int16]:
    """Index of the largest plane at each pixel; of equals the first, as torch on CPU.

    A running maximum, since NumPy's argmax along the first axis transposes everything.

    Args:
        planes: [n, h, w] with n >= 1, no NaN.

    Returns:
        int16 [h, w].
    """
    best = planes[0].copy()
    winner = np.zeros(best.shape, np.int16)
    for k in range(1, len(planes)):
        better = planes[k] > best
        np.copyto(best, planes[k], where=better)
        np.copyto(winner, np.int16(k), where=better)
    return winner


def largest(values: Float, count: int) -> NDArray[np.int64]:
    """Flat indices of the ``count`` largest values, descending; of equals the lower index.

    torch.topk promises no order among equals; this one is reproducible.
    """
    flat = values.ravel()
    return np.argsort(-flat, kind="stable")[: min(count, flat.size)]
