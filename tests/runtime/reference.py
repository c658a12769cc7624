"""Post-processing written plainly with PyTorch: full-size masks of all queries at once.

An independent second version of m2f.runtime's, for random inputs that no golden covers.
"""

import torch
from torch.nn import functional as F


def resized(masks, size):
    return F.interpolate(masks[None], size=size, mode="bilinear", align_corners=False)[0]


def at_output(masks, frame):
    h, w = frame.valid
    return resized(resized(masks, frame.padded)[:, :h, :w], frame.output)


def semantic(logits, masks, frame, *, after_resize):
    probabilities = logits.softmax(-1)[:, :-1]
    if after_resize:
        return torch.einsum("qk,qhw->khw", probabilities, at_output(masks, frame).sigmoid())
    h, w = frame.valid
    valid = resized(masks, frame.padded)[:, :h, :w].sigmoid()
    return resized(torch.einsum("qk,qhw->khw", probabilities, valid), frame.output)


def instance(logits, masks, frame, *, top_k):
    probabilities = logits.softmax(-1)[:, :-1]
    scores, pairs = probabilities.flatten().sort(descending=True, stable=True)
    scores, pairs = scores[:top_k], pairs[:top_k]
    full = at_output(masks, frame)[pairs // probabilities.shape[1]]
    inside = full > 0
    mean = (full.sigmoid() * inside).sum((1, 2)) / (inside.sum((1, 2)) + 1e-6)
    return scores * mean, pairs % probabilities.shape[1], inside


def panoptic(logits, masks, frame, is_thing, *, keep, overlap, fuse=True):
    """Segment ids, and (id, class) of each new segment in order."""
    scores, labels = logits.softmax(-1).max(-1)
    kept = [q for q in range(len(labels)) if labels[q] < len(is_thing) and scores[q] > keep]
    ids = torch.zeros(frame.output, dtype=torch.int32)
    segments, merged = [], {}
    if not kept:
        return ids, segments
    probabilities = at_output(masks, frame).sigmoid()[kept]
    winner = (probabilities * scores[kept][:, None, None]).argmax(0)
    for rank, query in enumerate(kept):
        label = int(labels[query])
        own, won = probabilities[rank] >= 0.5, winner == rank
        if not (own & won).any() or int(won.sum()) / int(own.sum()) < overlap:
            continue
        if fuse and not is_thing[label] and label in merged:
            ids[own & won] = merged[label]
            continue
        segments.append((len(segments) + 1, label))
        merged[label] = len(segments)
        ids[own & won] = len(segments)
    return ids, segments
