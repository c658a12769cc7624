"""Panoptic inference: queries compete for every pixel; few win enough to become segments.

At each pixel the query with the largest (class probability x mask probability) wins. A query
becomes a segment if it wins enough of its own mask; then stuff of one class is one segment.
The conventions differ in details that decide real segments:

              own mask of a query             wins enough   a segment's pixels
    official  mask probability >= 0.5         share >= t    won and in its own mask
    mmdet     the same                        share >= t    won and in its own mask
    hf        class x mask probability >= m   share > t     won

with share = pixels won / pixels of the own mask, t = ``overlap_threshold``, m =
``mask_threshold``. "hf" resizes probabilities (from 384x384), the others logits. mmdet is
meant as its Mask2Former configs set it (``filter_low_score=True``).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from m2f.config import Postprocess
from m2f.runtime.logits import Frame, argmax_planes, sigmoid_, softmax
from m2f.runtime.native import Library, Masks
from m2f.runtime.resample import Float, between
from m2f.runtime.semantic import HF_SIZE, route


@dataclass(frozen=True, slots=True)
class Accepted:
    """A query that won enough pixels.

    Attributes:
        query: Its index, 0..Q-1.
        label: Class index.
        score: Class probability.
        segment: Id of its segment, which merged stuff shares.
    """

    query: int
    label: int
    score: float
    segment: int


@dataclass(frozen=True, slots=True, eq=False)
class Panoptic:
    """A panoptic map.

    Attributes:
        segment_ids: int32 [H, W]; 0 where no segment is; numbered from 1 in the order in
            which the queries come.
        accepted: In the order of queries.
        candidates: How many queries took part.
    """

    segment_ids: NDArray[np.int32]
    accepted: tuple[Accepted, ...]
    candidates: int

    def ids_of_hf(self, fused: Sequence[bool]) -> tuple[NDArray[np.int32], list[int]]:
        """The ids transformers gives; ``fused`` says per class whether it is merged.

        After a merged segment it goes on counting from that one's id, so that its ids can
        repeat. If no query took part its map is -1 throughout; otherwise 0 is no segment.

        Returns:
            The map, and the id of each accepted query.
        """
        table = np.zeros(len(self.accepted) + 1, np.int32)
        known: dict[int, int] = {}
        current = 0
        ids = []
        for one in self.accepted:
            current = known.get(one.label, current + 1)
            if fused[one.label]:
                known[one.label] = current
            table[one.segment] = current
            ids.append(current)
        return table[self.segment_ids] if self.candidates else self.segment_ids - 1, ids

    def ids_of_mmdet(self, is_thing: Sequence[bool]) -> NDArray[np.int32]:
        """The map mmdetection gives: class + 1000 * instance, the number of classes as void.

        Instances count from 1 over all things; stuff is instance 0.
        """
        table = np.full(len(self.accepted) + 1, len(is_thing), np.int32)
        things = 0
        for one in self.accepted:
            things += is_thing[one.label]
            table[one.segment] = one.label + (1000 * things if is_thing[one.label] else 0)
        return table[self.segment_ids]


def panoptic(
    class_logits: NDArray[Any],
    mask_logits: Masks,
    frame: Frame,
    rules: Postprocess,
    is_thing: Sequence[bool],
    library: Library | None = None,
) -> Panoptic:
    """Merges queries into one segment map.

    Cheng et al., Mask2Former, CVPR 2022, after MaskFormer (NeurIPS 2021), section 3.4.

    Args:
        class_logits: [Q, K + 1].
        mask_logits: [Q, h, w], before the sigmoid.
        frame: Sizes; the whole mask stands for ``frame.padded``.
        rules: All but ``top_k``, ``semantic_after_resize`` and ``things_only`` are used.
        is_thing: Per class, K values.
        library: Does the work; NumPy unless given.
    """
    probabilities = softmax(class_logits)
    labels, scores = probabilities.argmax(axis=1), probabilities.max(axis=1)
    # Before any resizing: the others cannot win a pixel.
    kept = np.flatnonzero(
        (labels != probabilities.shape[1] - 1) & (scores > rules.object_mask_threshold)
    )
    if not len(kept):
        return Panoptic(np.zeros(frame.output, np.int32), (), 0)
    hf = rules.convention == "hf"
    if library is not None:
        contest = _compete_natively(library, mask_logits, kept, scores[kept], frame, rules)
    else:
        masks = mask_logits[kept].astype(np.float32, copy=False)
        blocks = (_hf_blocks if hf else _blocks)(masks, frame)
        threshold = rules.mask_threshold if hf else None
        contest = _compete(blocks, scores[kept], frame.output, threshold)
    accepted = _accept(contest, kept, labels, scores, rules, is_thing)
    table = np.zeros((len(kept), 2), np.int32)
    rank = {int(query): i for i, query in enumerate(kept)}
    for one in accepted:
        table[rank[one.query], 0 if hf else 1 :] = one.segment
    ids = table.ravel()
    segment_ids = ids[contest.codes] if library is None else library.look_up(contest.codes, ids)
    return Panoptic(segment_ids, tuple(accepted), len(kept))


@dataclass(frozen=True, slots=True, eq=False)
class _Contest:
    # [H, W]: twice the winner's rank among the kept queries, plus 1 in the winner's own mask
    codes: NDArray[np.uint16]
    won: NDArray[np.int64]  # [n] pixels
    own: NDArray[np.int64]  # [n] pixels
    both: NDArray[np.int64]  # [n] pixels


def _compete(
    blocks: Iterator[tuple[slice, Float]],
    scores: Float,
    size: tuple[int, int],
    threshold: float | None,
) -> _Contest:
    """Runs over the mask probabilities once, counting as it goes.

    Args:
        blocks: Rows of the output and the mask probabilities there, [n, rows, W].
        scores: Class probabilities [n].
        size: H, W of the output.
        threshold: Where given, the own mask is class x mask probability from it on.
    """
    n = len(scores)
    codes = np.empty(size, np.uint16)
    won, own, both = (np.zeros(n, np.int64) for _ in range(3))
    for part, probabilities in blocks:
        weighted = probabilities * scores[:, None, None]
        if threshold is None:
            members = probabilities >= np.float32(0.5)
        else:
            members = weighted >= np.float32(threshold)
        best = argmax_planes(weighted)
        mine = np.take_along_axis(members, best[None].astype(np.intp), axis=0)[0]
        codes[part] = 2 * best + mine
        won += np.bincount(best.ravel(), minlength=n)
        own += members.sum(axis=(1, 2))
        both += np.bincount(best[mine], minlength=n)
    return _Contest(codes, won, own, both)


def _compete_natively(
    library: Library,
    masks: Masks,
    kept: NDArray[np.int64],
    scores: Float,
    frame: Frame,
    rules: Postprocess,
) -> _Contest:
    """As `_compete`, of all masks [Q, h, w]."""
    hf = rules.convention == "hf"
    codes, (own, won, both) = library.panoptic(
        masks,
        kept,
        scores,
        route((masks.shape[1], masks.shape[2]), frame, rules),
        threshold=rules.mask_threshold if hf else 0.5,
        is_weighted=hf,
        as_probabilities=hf,
    )
    return _Contest(codes, won, own, both)


def _accept(
    contest: _Contest,
    kept: NDArray[np.int64],
    labels: NDArray[np.int64],
    scores: Float,
    rules: Postprocess,
    is_thing: Sequence[bool],
) -> list[Accepted]:
    accepted: list[Accepted] = []
    stuff: dict[int, int] = {}
    segments = 0
    for rank, query in enumerate(kept):
        won, own, both = (int(a[rank]) for a in (contest.won, contest.own, contest.both))
        if not won or not own or (rules.convention == "official" and not both):
            continue
        if rules.convention == "hf":  # a float32 quotient, and no equality
            enough = float(np.float32(won) / np.float32(own)) > rules.overlap_threshold
        else:
            enough = won / own >= rules.overlap_threshold
        if not enough:
            continue
        label = int(labels[query])
        if rules.fuse_stuff and not is_thing[label] and label in stuff:
            segment = stuff[label]
        else:
            segments += 1
            segment = stuff[label] = segments
        accepted.append(Accepted(int(query), label, float(scores[query]), segment))
    return accepted


def _blocks(masks: Float, frame: Frame) -> Iterator[tuple[slice, Float]]:
    resampler = frame.to_output((masks.shape[1], masks.shape[2]))
    for part in resampler.parts(2 * len(masks)):
        yield part, sigmoid_(resampler.resize(masks, part))


def _hf_blocks(masks: Float, frame: Frame) -> Iterator[tuple[slice, Float]]:
    size = (masks.shape[1], masks.shape[2])
    first = between(size, HF_SIZE, extent=frame.extent(size))
    probabilities = sigmoid_(first.resize(masks))
    resampler = between(HF_SIZE, frame.output)
    for part in resampler.parts(2 * len(masks)):
        yield part, resampler.resize(probabilities, part)
