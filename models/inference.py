"""From class and mask logits to segments, exactly as the official code does it.

Short and slow: every query's mask is brought to full size first. The runtime gives the same
results without that (and without PyTorch); this is what it is tested against.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from m2f.config import Metadata

Size = tuple[int, int]
EPSILON = 1e-6
"""Keeps the score of an empty mask finite."""


class Segment(NamedTuple):
    """One segment of a panoptic map."""

    id: int
    category: int
    is_thing: bool


class Instances(NamedTuple):
    """Instances, best first.

    Attributes:
        scores: [n], class probability times mean mask probability inside the mask.
        categories: [n], int64.
        queries: [n], int64, where each came from.
        masks: [n, H, W], bool.
    """

    scores: Tensor
    categories: Tensor
    queries: Tensor
    masks: Tensor


def full_size_masks(mask_logits: Tensor, padded: Size, valid: Size, output: Size) -> Tensor:
    """Brings the masks of one image to its original size.

    Args:
        mask_logits: [Q, H/4, W/4].
        padded: Height and width of the network's input.
        valid: Of the image in it, without padding.
        output: Of the image before it was resized for the network.

    Returns:
        [Q, H, W], logits: resized twice, as the official code does, not once.
    """
    x = F.interpolate(mask_logits[None], size=padded, mode="bilinear", align_corners=False)[0]
    return cropped_and_resized(x, valid, output)


def cropped_and_resized(x: Tensor, valid: Size, output: Size) -> Tensor:
    """Cuts the padding off maps [C, H, W] and resizes them."""
    x = x[None, :, : valid[0], : valid[1]]
    return F.interpolate(x, size=output, mode="bilinear", align_corners=False)[0]


def semantic(class_logits: Tensor, masks: Tensor) -> Tensor:
    """Scores of each class at each pixel, [K, H, W].

    Args:
        class_logits: [Q, K + 1].
        masks: [Q, H, W], logits.
    """
    probabilities = class_logits.softmax(-1)[:, :-1]
    return torch.einsum("qk,qhw->khw", probabilities, masks.sigmoid())


def instance(class_logits: Tensor, masks: Tensor, metadata: Metadata) -> Instances:
    """The best pairs of query and class.

    Args:
        class_logits: [Q, K + 1].
        masks: [Q, H, W], logits.
        metadata: Which classes are things, how many instances to keep.
    """
    probabilities = class_logits.softmax(-1)[:, :-1]
    classes = probabilities.shape[1]
    count = min(metadata.postprocess.top_k, probabilities.numel())
    scores, best = probabilities.flatten().topk(count, sorted=False)
    categories, queries = best % classes, best // classes
    if metadata.postprocess.things_only:
        things = torch.tensor([c.is_thing for c in metadata.categories])
        keep = things[categories]
        scores, categories, queries = scores[keep], categories[keep], queries[keep]
    inside = masks[queries] > 0
    probability = (masks[queries].sigmoid() * inside).flatten(1).sum(1)
    quality = probability / (inside.flatten(1).sum(1) + EPSILON)
    order = (scores * quality).argsort(descending=True)
    return Instances(
        (scores * quality)[order], categories[order], queries[order], inside[order]
    )


def panoptic(
    class_logits: Tensor, masks: Tensor, metadata: Metadata
) -> tuple[Tensor, list[Segment]]:
    """Merges queries into one map: each pixel to the query that claims it most.

    Args:
        class_logits: [Q, K + 1].
        masks: [Q, H, W], logits.
        metadata: Which classes are things, and the thresholds.

    Returns:
        Segment ids [H, W], int32, 0 where no segment is; and the segments.
    """
    rules = metadata.postprocess
    scores, labels = class_logits.softmax(-1).max(-1)
    keep = (labels != class_logits.shape[1] - 1) & (scores > rules.object_mask_threshold)
    scores, labels, masks = scores[keep], labels[keep], masks[keep].sigmoid()
    ids = torch.zeros(masks.shape[1:], dtype=torch.int32)
    segments: list[Segment] = []
    if not len(labels):
        return ids, segments

    owner = (scores[:, None, None] * masks).argmax(0)
    stuff: dict[int, int] = {}
    for query, label in enumerate(labels.tolist()):
        claimed = masks[query] >= 0.5
        won = (owner == query) & claimed
        own_area, area = int((owner == query).sum()), int(claimed.sum())
        if not own_area or not area or not won.any():
            continue
        if own_area / area < rules.overlap_threshold:
            continue
        is_thing = metadata.categories[label].is_thing
        if not is_thing and label in stuff:
            ids[won] = stuff[label]
            continue
        segments.append(Segment(len(segments) + 1, label, is_thing))
        ids[won] = segments[-1].id
        if not is_thing:
            stuff[label] = segments[-1].id
    return ids, segments
