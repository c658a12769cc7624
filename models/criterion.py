"""What training minimises (section 3.2 and 4.1 of the paper).

Each true segment of an image is given to one query, at the least total cost (`matcher`);
matched queries learn the segment's class and mask, the others learn "no object". Masks are
compared at sampled points instead of all pixels (PointRend, Kirillov et al., CVPR 2020). The
loss is taken on the learnt queries and after every decoder layer.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from m2f.errors import UsageError
from m2f.models.matcher import Match, Objective, Target, match, sample
from m2f.models.transformer_decoder import Heads


class Losses(NamedTuple):
    """The objective and its three parts, weighted and summed over the heads; scalars."""

    total: Tensor
    classes: Tensor
    mask: Tensor
    dice: Tensor


def criterion(
    heads: Sequence[Heads],
    targets: Sequence[Target],
    objective: Objective | None = None,
    *,
    points: Tensor | None = None,
) -> Losses:
    """Compares what all heads say with the truth.

    Args:
        heads: `Output.heads`, T of them.
        targets: One per image.
        objective: Default: the paper's.
        points: [P, 2], (x, y) in 0..1: compare there, in matching and in the loss, instead
            of at random points.

    Returns:
        Losses, differentiable. Random points come from torch's global generator.

    Raises:
        UsageError: The number of targets is not the batch size.
    """
    objective = objective or Objective()
    n, t = len(heads[0].class_logits), len(heads)
    if len(targets) != n:
        raise UsageError(f"{n} images but {len(targets)} targets; give one target per image")
    # All heads face the same truth, so they are one batch of T * N images.
    class_logits = torch.cat([head.class_logits for head in heads])
    mask_logits = torch.cat([head.mask_logits for head in heads])
    matches = match(class_logits, mask_logits, targets, objective, points=points)
    segments = max(sum(len(target.classes) for target in targets), 1)

    classes = _class_loss(class_logits, targets, matches, objective.no_object)
    image = torch.cat([torch.full_like(m.queries, i) for i, m in enumerate(matches)])
    queries = mask_logits[image, torch.cat([m.queries for m in matches])]
    masks = torch.cat([targets[i % n].masks[m.segments] for i, m in enumerate(matches)])
    bce, dice = _mask_losses(queries, masks.to(queries), objective, points)
    classes = classes * (t * objective.class_weight)
    bce = bce.sum() * (objective.mask_weight / segments)
    dice = dice.sum() * (objective.dice_weight / segments)
    return Losses(classes + bce + dice, classes, bce, dice)


def _class_loss(
    logits: Tensor, targets: Sequence[Target], matches: Sequence[Match], no_object: float
) -> Tensor:
    """Cross entropy, mean over all queries by weight; unmatched ones mean "no object".

    Every head matches as many queries as any other, so one mean over all T * N images is
    the mean of the heads' own.
    """
    nothing = logits.shape[2] - 1
    wanted = torch.full(logits.shape[:2], nothing, dtype=torch.int64, device=logits.device)
    for i, m in enumerate(matches):
        wanted[i, m.queries] = targets[i % len(targets)].classes[m.segments]
    weight = torch.ones(nothing + 1, dtype=logits.dtype, device=logits.device)
    weight[nothing] = no_object
    return F.cross_entropy(logits.flatten(0, 1), wanted.flatten(), weight)


def _mask_losses(
    logits: Tensor, masks: Tensor, objective: Objective, points: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Binary cross entropy and dice of R matched pairs, [R] each.

    Args:
        logits: [R, H/4, W/4].
        masks: [R, H, W].
        objective: How to sample.
        points: [P, 2], or None to draw each pair's own.
    """
    if points is None:
        places = importance_points(logits.detach(), objective)
    else:
        places = points.expand(len(logits), -1, -1)
    predicted = sample(logits[:, None], places)[:, 0]
    with torch.no_grad():
        wanted = sample(masks[:, None], places)[:, 0]
    bce = F.binary_cross_entropy_with_logits(predicted, wanted, reduction="none").mean(1)
    share = predicted.sigmoid()
    overlap = 2 * (share * wanted).sum(1)
    dice = 1 - (overlap + 1) / (share.sum(1) + wanted.sum(1) + 1)
    return bce, dice


def importance_points(logits: Tensor, objective: Objective) -> Tensor:
    """Draws points, most of them where a mask is least certain.

    PointRend, section 3.1: oversample, keep the least certain, fill up with uniform ones.

    Args:
        logits: [R, H, W].
        objective: K, oversample and importance.

    Returns:
        [R, K, 2], (x, y) in 0..1.
    """
    k, r = objective.points, len(logits)
    kept = int(objective.importance * k)
    candidates = torch.rand(r, int(k * objective.oversample), 2).to(logits)
    certainty = sample(logits[:, None], candidates)[:, 0].abs()
    chosen = certainty.topk(kept, dim=1, largest=False, sorted=False).indices
    uncertain = candidates.gather(1, chosen[..., None].expand(-1, -1, 2))
    return torch.cat([uncertain, torch.rand(r, k - kept, 2).to(logits)], 1)
