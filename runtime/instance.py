"""Instance inference: the best (query, class) pairs, each with its own mask.

A pair's score is its class probability times the mean mask probability inside the mask. One
query may appear with several classes; its mask is resized and stored once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from m2f.config import Postprocess
from m2f.runtime.logits import Frame, largest, sigmoid_, softmax
from m2f.runtime.masks import PackedMasks
from m2f.runtime.native import Library, Masks
from m2f.runtime.resample import Float, between, nearest
from m2f.runtime.semantic import HF_SIZE, route


@dataclass(frozen=True, slots=True, eq=False)
class Detections:
    """Instances, by descending class probability; n of them.

    Attributes:
        labels: Class indices, int64 [n].
        scores: float32 [n].
        queries: int64 [n].
        masks: [n, H, W], packed.
    """

    labels: NDArray[np.int64]
    scores: Float
    queries: NDArray[np.int64]
    masks: PackedMasks


def instance(
    class_logits: NDArray[Any],
    mask_logits: Masks,
    frame: Frame,
    rules: Postprocess,
    is_thing: Sequence[bool],
    library: Library | None = None,
) -> Detections:
    """The ``rules.top_k`` most probable pairs; with ``things_only``, the things among them.

    Pairs whose mask is empty stay, with score 0 (as in the official code), except that "hf"
    drops them; "hf" takes as many pairs as there are queries and filters no class.

    Args:
        class_logits: [Q, K + 1].
        mask_logits: [Q, h, w], before the sigmoid.
        frame: Sizes; the whole mask stands for ``frame.padded``.
        rules: ``convention``, ``top_k`` and ``things_only`` are used.
        is_thing: Per class, K values.
        library: Does the work; NumPy unless given.
    """
    hf = rules.convention == "hf"
    probabilities = softmax(class_logits)[:, :-1]
    k = probabilities.shape[1]
    pairs = largest(probabilities, len(class_logits) if hf else rules.top_k)
    if rules.things_only and not hf:
        pairs = pairs[np.asarray(is_thing, bool)[pairs % k]]
    queries, labels = pairs // k, pairs % k
    chosen, row = np.unique(queries, return_inverse=True)
    if library is not None:
        bits, quality = _native_masks(library, mask_logits, chosen, frame, rules)
    else:
        masks = mask_logits[chosen].astype(np.float32, copy=False)
        bits, quality = (_hf_masks if hf else _masks)(masks, frame)
    scores = probabilities.ravel()[pairs] * quality[row]
    if hf:
        kept = np.flatnonzero(np.any(bits, axis=(1, 2)).take(row))
        queries, labels, scores, row = queries[kept], labels[kept], scores[kept], row[kept]
    return Detections(labels, scores, queries, PackedMasks(bits, row, frame.output[1]))


def _native_masks(
    library: Library,
    masks: Masks,
    chosen: NDArray[np.int64],
    frame: Frame,
    rules: Postprocess,
) -> tuple[NDArray[np.uint8], Float]:
    """As `_masks` and `_hf_masks`, of all masks [Q, h, w]."""
    way = route((masks.shape[1], masks.shape[2]), frame, rules)
    if rules.convention != "hf":
        bits, total, inside = library.instance(masks, chosen, way)
        return bits, _mean(total, inside)
    bits, total, inside = library.instance(masks, chosen, replace(way, output=HF_SIZE))
    rows = nearest(HF_SIZE[0], frame.output[0])
    columns = nearest(HF_SIZE[1], frame.output[1])
    return library.enlarge_masks(bits, HF_SIZE[1], rows, columns), _mean(total, inside)


def _masks(masks: Float, frame: Frame) -> tuple[NDArray[np.uint8], Float]:
    """Packed masks [n, H, ceil(W / 8)] and their mean probability inside, [n]."""
    height, width = frame.output
    n = len(masks)
    resampler = frame.to_output((masks.shape[1], masks.shape[2]))
    bits = np.empty((n, height, -(-width // 8)), np.uint8)
    total, count = np.zeros(n), np.zeros(n)
    for part in resampler.parts(n):
        logits = resampler.resize(masks, part)
        bits[:, part], t, c = _binarise(logits)
        total += t
        count += c
    return bits, _mean(total, count)


def _hf_masks(masks: Float, frame: Frame) -> tuple[NDArray[np.uint8], Float]:
    """As `_masks`; binary and scored at 384x384, then enlarged by nearest neighbour."""
    size = (masks.shape[1], masks.shape[2])
    first = between(size, HF_SIZE, extent=frame.extent(size))
    rows = nearest(HF_SIZE[0], frame.output[0])
    columns = nearest(HF_SIZE[1], frame.output[1])
    bits = np.empty((len(masks), len(rows), -(-len(columns) // 8)), np.uint8)
    total, count = np.zeros(len(masks)), np.zeros(len(masks))
    for i in range(len(masks)):
        logits = first.resize(masks[i : i + 1])
        positive = (logits[0] > 0)[:, columns]
        bits[i] = np.packbits(positive, axis=1)[rows]
        _, total[i : i + 1], count[i : i + 1] = _binarise(logits)
    return bits, _mean(total, count)


def _binarise(
    logits: Float,
) -> tuple[NDArray[np.uint8], NDArray[np.float64], NDArray[np.float64]]:
    """Packed ``logits > 0``, and per plane the sum of probabilities there and its pixels."""
    positive = logits > 0
    count = positive.sum(axis=(1, 2), dtype=np.float64)
    inside = sigmoid_(logits)
    inside *= positive
    total = inside.sum(axis=(1, 2), dtype=np.float64)
    return np.packbits(positive, axis=2), total, count


def _mean(total: NDArray[np.float64], count: NDArray[Any]) -> Float:
    return (total / (count + 1e-6)).astype(np.float32)  # 1e-6 as in the official code
