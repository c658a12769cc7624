"""The native results against the official algorithm in PyTorch, pixel by pixel.

Resizing is equal to the bit where PyTorch and the kernels both round a sum of products once;
the pixels that differ are ties within the rounding of probabilities, which is checked of each.
(Kernels that round twice, those for SSE4.2, are compared with NumPy in test_kernels.py.)
"""

import numpy as np
import pytest
import torch

from m2f.config import TASKS, Category, Metadata, Postprocess, Preprocess
from m2f.models import inference
from m2f.runtime.logits import softmax
from m2f.runtime.native import Route
from m2f.runtime.postprocess import segment
from tests import tolerance
from tests.images.kernels import FRAMES, KERNELS, KINDS, THINGS, needs_library, opened
from tests.runtime.cases import differing

FUSED = {"AVX2": ["avx2", "avx512"], "AVX512": ["avx2", "avx512"]}
"""Kernels that round as PyTorch does, by what it calls the instruction set it uses."""

SAME = [k for k in KERNELS if k in FUSED.get(torch.backends.cpu.get_cpu_capability(), ())]
pytestmark = [
    needs_library,
    pytest.mark.skipif(not SAME, reason="PyTorch or the kernels have no fused product and sum"),
]
CATEGORIES = tuple(
    Category(id=k, name=str(k), colour=(0, 0, 0), is_thing=thing)
    for k, thing in enumerate(THINGS)
)
RULES = Postprocess(object_mask_threshold=0.4, overlap_threshold=0.3, top_k=30)
METADATA = Metadata(
    task="panoptic",
    tasks=TASKS,
    categories=CATEGORIES,
    preprocess=Preprocess(),
    postprocess=RULES,
)


def case_of(kind, frame):
    logits, masks = KINDS[kind](11, size=(frame.padded[0] // 4, frame.padded[1] // 4))
    full = inference.full_size_masks(
        torch.from_numpy(masks), frame.padded, frame.valid, frame.output
    )
    return logits, masks, full


def predicted(task, logits, masks, frame):
    return segment(logits, masks, frame, task=task, rules=RULES, categories=CATEGORIES)


def ties(claims, found, bound):
    """Where the largest of claims [n, H, W] is not ``found``; each must be within the bound."""
    claims = claims.double().numpy()
    best = claims.max(axis=0)
    mine = np.take_along_axis(claims, found[None].astype(np.int64), axis=0)[0]
    assert ((best - mine) <= bound * best).all()
    return int(np.count_nonzero(claims.argmax(axis=0) != found))


@pytest.mark.parametrize("name", SAME)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("frame", FRAMES.values(), ids=FRAMES)
def test_masks_are_resized_to_the_bit(frame, kind, name):
    _, masks, full = case_of(kind, frame)
    route = Route(frame.padded, frame.valid, frame.output)
    bits, total, inside = opened(name).instance(masks, np.arange(len(masks)), route)
    positive = full.numpy() > 0
    found = np.unpackbits(bits, axis=2, count=frame.output[1]).astype(bool)
    assert np.array_equal(found, positive)
    assert np.array_equal(inside, positive.sum((1, 2)))
    expected = (full.double().sigmoid() * torch.from_numpy(found)).sum((1, 2))
    assert np.abs(total - expected.numpy()).max() <= tolerance.POSTPROCESS_SCORE * found[0].size


@pytest.mark.parametrize("name", SAME)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("frame", FRAMES.values(), ids=FRAMES)
def test_a_pixel_that_another_wins_is_a_tie(frame, kind, name):
    logits, masks, full = case_of(kind, frame)
    scores = softmax(logits).max(axis=1)
    route = Route(frame.padded, frame.valid, frame.output)
    codes, (own, won, both) = opened(name).panoptic(
        masks,
        np.arange(len(masks)),
        scores,
        route,
        threshold=0.5,
        is_weighted=False,
        as_probabilities=False,
    )
    probabilities = full.sigmoid()
    claims = probabilities * torch.from_numpy(scores)[:, None, None]
    tied = ties(claims, codes // 2, tolerance.CLAIM)
    assert tied <= tolerance.POSTPROCESS_PIXELS * codes.size
    winner = torch.from_numpy(codes // 2).long()[None]
    mine = torch.take_along_dim(probabilities, winner, dim=0)[0]
    assert ((mine >= 0.5).numpy() != (codes % 2 == 1)).sum() <= tied
    assert np.array_equal(won, np.bincount(codes.ravel() // 2, minlength=len(masks)))
    assert np.array_equal(both, np.bincount(codes.ravel(), minlength=2 * len(masks))[1::2])
    wrong = np.abs(own - (probabilities >= 0.5).sum((1, 2)).numpy()).sum()
    assert wrong <= tolerance.POSTPROCESS_PIXELS * codes.size


@pytest.mark.parametrize("name", SAME)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("frame", FRAMES.values(), ids=FRAMES)
@pytest.mark.parametrize("resized_last", [False, True])
def test_a_class_that_another_has_is_a_tie(frame, kind, name, resized_last):
    logits, masks, full = case_of(kind, frame)
    if resized_last:
        at_network = inference.full_size_masks(
            torch.from_numpy(masks), frame.padded, frame.padded, frame.padded
        )
        sums = inference.semantic(torch.from_numpy(logits), at_network)
        sums = inference.cropped_and_resized(sums, frame.valid, frame.output)
    else:
        sums = inference.semantic(torch.from_numpy(logits), full)
    labels = opened(name).semantic(
        masks,
        softmax(logits)[:, :-1],
        Route(frame.padded, frame.valid, frame.output),
        sums_first=resized_last,
    )
    tied = ties(sums, labels, tolerance.class_sum(len(masks)))
    assert tied <= tolerance.POSTPROCESS_PIXELS * labels.size


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("frame", FRAMES.values(), ids=FRAMES)
def test_segments_are_the_official_ones(frame, kind):
    logits, masks, full = case_of(kind, frame)
    ids, segments = inference.panoptic(torch.from_numpy(logits), full, METADATA)
    found = predicted("panoptic", logits, masks, frame)
    visible = [s for s in segments if (ids == s.id).any()]
    assert [(s.id, s.label) for s in found.segments] == [(s.id, s.category) for s in visible]
    assert differing(found.segment_ids, ids.numpy()) <= tolerance.POSTPROCESS_PIXELS
    for segment_ in found.segments:
        mask = found.segment_ids == segment_.id
        y, x = np.nonzero(mask)
        assert segment_.area == len(y)
        assert segment_.box == (x.min(), y.min(), np.ptp(x) + 1, np.ptp(y) + 1)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("frame", FRAMES.values(), ids=FRAMES)
def test_instances_are_the_official_ones(frame, kind):
    logits, masks, full = case_of(kind, frame)
    expected = inference.instance(torch.from_numpy(logits), full, METADATA)
    found = predicted("instance", logits, masks, frame)
    scores = expected.scores.numpy()
    assert np.abs(found.scores - scores).max() <= tolerance.POSTPROCESS_SCORE
    gap = np.abs(np.diff(scores, prepend=2, append=-1))
    for i in np.flatnonzero(np.minimum(gap[:-1], gap[1:]) > 2 * tolerance.POSTPROCESS_SCORE):
        assert found.labels[i] == expected.categories[i]
        assert np.array_equal(found.mask(i), expected.masks[i])
    for i, segment_ in enumerate(found.segments):
        mask = found.mask(i)
        assert segment_.area == mask.sum()
        if segment_.area:
            y, x = np.nonzero(mask)
            assert segment_.box == (x.min(), y.min(), np.ptp(x) + 1, np.ptp(y) + 1)
