"""Which query answers for which true segment.

The assignment of least total cost (as DETR, Carion et al., ECCV 2020), where the cost of a
pair is its part of the loss, with the class's probability in place of its logarithm.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from m2f.errors import MissingDependency, UsageError


@dataclass(frozen=True, slots=True, kw_only=True)
class Objective:
    """Weights and sampling of costs and losses; the defaults are the paper's, section 4.1.

    Attributes:
        points: K, points per mask; 112 x 112.
        oversample: Candidates per importance-sampled point.
        importance: Share of the points taken where the prediction is least certain; the
            rest are uniform.
        class_weight: Of the cross entropy over classes.
        mask_weight: Of the binary cross entropy over points.
        dice_weight: Of the dice loss over points.
        no_object: Weight of "no object" among the classes.
    """

    points: int = 12544
    oversample: float = 3.0
    importance: float = 0.75
    class_weight: float = 2.0
    mask_weight: float = 5.0
    dice_weight: float = 5.0
    no_object: float = 0.1

    def __post_init__(self) -> None:
        if self.points < 1 or self.oversample < 1 or not 0 <= self.importance <= 1:
            raise UsageError(
                "the loss needs points >= 1, oversample >= 1 and importance in 0..1, got "
                f"{self.points}, {self.oversample} and {self.importance}"
            )


class Target(NamedTuple):
    """The truth about one image.

    Attributes:
        classes: [n], int64, 0..K-1.
        masks: [n, H, W], bool or float 0..1, of the padded image's size.
    """

    classes: Tensor
    masks: Tensor


class Match(NamedTuple):
    """Pairs of query and true segment; both [m], int64, m = min(Q, n)."""

    queries: Tensor
    segments: Tensor


def sample(maps: Tensor, points: Tensor) -> Tensor:
    """Reads maps at points, bilinear; zero outside.

    Args:
        maps: [N, C, H, W], float.
        points: [N, P, 2], (x, y) in 0..1 over the map, pixel centres at (i + 0.5) / size.

    Returns:
        [N, C, P].
    """
    grid = (2 * points - 1)[:, :, None].to(maps.dtype)
    return F.grid_sample(maps, grid, align_corners=False)[..., 0]


@torch.no_grad()
def match(
    class_logits: Tensor,
    mask_logits: Tensor,
    targets: Sequence[Target],
    objective: Objective,
    *,
    points: Tensor | None = None,
) -> list[Match]:
    """Assigns true segments to queries.

    Args:
        class_logits: [B, Q, K + 1]; B is a multiple of the number of targets, image i has
            target i modulo that number.
        mask_logits: [B, Q, H/4, W/4].
        targets: The truth about each image.
        objective: Weights of the cost, and K.
        points: [P, 2], (x, y) in 0..1; default: K uniform ones per image, shared by all
            pairs of the image.
    """
    b = len(class_logits)
    if points is None:
        places = torch.rand(b, objective.points, 2).to(mask_logits)
    else:
        places = points.expand(b, -1, -1)
    probability = class_logits.softmax(-1)
    predicted = sample(mask_logits, places)  # [B, Q, P]
    matches = []
    for i in range(b):
        classes, masks = targets[i % len(targets)]
        wanted = sample(masks[None].to(predicted), places[i : i + 1])[0]  # [n, P]
        cost = objective.class_weight * -probability[i][:, classes]
        cost += _mask_cost(predicted[i], wanted, objective)
        queries, segments = _assign(cost)
        matches.append(Match(queries.to(classes.device), segments.to(classes.device)))
    return matches


def _mask_cost(predicted: Tensor, wanted: Tensor, objective: Objective) -> Tensor:
    """Cost of each pair of logits [Q, P] and true masks [n, P], [Q, n].

    With s = softplus: BCE(x, y) = s(x) - x y, so all pairs need one product of matrices.
    """
    bce = F.softplus(predicted).mean(1)[:, None] - predicted @ wanted.T / wanted.shape[1]
    share = predicted.sigmoid()
    overlap = 2 * share @ wanted.T
    dice = 1 - (overlap + 1) / (share.sum(1)[:, None] + wanted.sum(1) + 1)
    return objective.mask_weight * bce + objective.dice_weight * dice


def _assign(cost: Tensor) -> tuple[Tensor, Tensor]:
    """Rows and columns of the cheapest assignment in a cost matrix."""
    try:
        from scipy.optimize import (  # type: ignore[import-untyped, import-not-found, unused-ignore]
            linear_sum_assignment,
        )
    except ImportError:
        raise MissingDependency(
            "training needs SciPy, which is not installed; pip install 'm2f-deploy[train]'"
        ) from None
    rows, columns = linear_sum_assignment(cost.cpu().double().nan_to_num(1e6).numpy())
    return torch.as_tensor(rows), torch.as_tensor(columns)
