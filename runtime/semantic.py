"""Semantic inference: every pixel gets the class with the largest sum over queries.

seg[c, y, x] = sum_q p(c | q) * sigmoid(mask[q, y, x]); "no object" takes no part. What the
conventions disagree on is at which resolution that sum is formed.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from m2f.config import Postprocess
from m2f.runtime.logits import Frame, argmax_planes, sigmoid_, softmax
from m2f.runtime.native import Library, Masks, Route
from m2f.runtime.resample import Float, Resampler, between

HF_SIZE = (384, 384)
"""transformers brings every mask to this size first, whatever the image's aspect."""


def route(masks: tuple[int, int], frame: Frame, rules: Postprocess) -> Route:
    """How masks of this size get to the output."""
    if rules.convention == "hf":
        return Route(HF_SIZE, HF_SIZE, frame.output, extent=frame.extent(masks))
    return Route(frame.padded, frame.valid, frame.output)


def semantic(
    class_logits: NDArray[Any],
    mask_logits: Masks,
    frame: Frame,
    rules: Postprocess,
    library: Library | None = None,
) -> NDArray[np.int32]:
    """The class of every pixel.

    Args:
        class_logits: [Q, K + 1].
        mask_logits: [Q, h, w], before the sigmoid.
        frame: Sizes; the whole mask stands for ``frame.padded``.
        rules: ``convention`` and ``semantic_after_resize`` are used.
        library: Does the work; NumPy unless given.

    Returns:
        Class indices, int32, ``frame.output``.
    """
    if library is not None:
        h, w = mask_logits.shape[1:]
        return library.semantic(
            mask_logits,
            softmax(class_logits)[:, :-1],
            route((h, w), frame, rules),
            sums_first=rules.convention == "hf" or not rules.semantic_after_resize,
        )
    labels = np.empty(frame.output, np.int32)
    for part, scores in semantic_scores(class_logits, mask_logits, frame, rules):
        labels[part] = argmax_planes(scores)
    return labels


def semantic_scores(
    class_logits: NDArray[Any], mask_logits: NDArray[Any], frame: Frame, rules: Postprocess
) -> Iterator[tuple[slice, Float]]:
    """The sums that `semantic` compares, some rows of the output at a time.

    Yields:
        Rows of the output, and their scores, float32 [K, rows, W].
    """
    weights = np.ascontiguousarray(softmax(class_logits)[:, :-1].T)  # [K, Q]
    masks = mask_logits.astype(np.float32, copy=False)
    size = (masks.shape[1], masks.shape[2])
    if rules.convention == "hf":
        first = between(size, HF_SIZE, extent=frame.extent(size))
        yield from _resized_scores(weights, masks, first, between(HF_SIZE, frame.output))
    elif rules.semantic_after_resize:
        whole = frame.to_output(size)
        for part in whole.parts(len(masks) + len(weights)):
            yield part, _scores(weights, whole.resize(masks, part))
    else:
        first = frame.to_valid(size)
        yield from _resized_scores(weights, masks, first, between(frame.valid, frame.output))


def _resized_scores(
    weights: Float, masks: Float, first: Resampler, second: Resampler
) -> Iterator[tuple[slice, Float]]:
    """Sums at the resolution between two resizes; only the rows the output rows need."""
    for part in second.parts(len(masks) + 2 * len(weights)):
        window = second.rows.window(part)
        scores = _scores(weights, first.resize(masks, window))
        yield part, second.resize(scores, part, first_row=window.start)


def _scores(weights: Float, logits: Float) -> Float:
    """[K, Q] times the sigmoid of [Q, h, w] (overwritten)."""
    q, h, w = logits.shape
    scores: Float = np.matmul(weights, sigmoid_(logits).reshape(q, h * w))
    return scores.reshape(-1, h, w)
