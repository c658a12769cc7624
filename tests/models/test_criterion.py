"""The training objective, against an independent dense computation in NumPy."""

import itertools

import numpy as np
import pytest
import torch

from m2f.errors import UsageError
from m2f.models.criterion import criterion, importance_points
from m2f.models.matcher import Objective, Target, match, sample
from m2f.models.transformer_decoder import Heads
from tests.tolerance import FLOAT64_SUMS

H, W, CLASSES = 6, 5, 3


def centres(h=H, w=W):
    y, x = torch.meshgrid(torch.arange(h).double(), torch.arange(w).double(), indexing="ij")
    return torch.stack([(x + 0.5) / w, (y + 0.5) / h], -1).flatten(0, 1)


def draw(seed, *, images, queries, segments, heads=1):
    g = torch.Generator().manual_seed(seed)
    like = {"generator": g, "dtype": torch.float64}
    predictions = [
        Heads(
            torch.randn(images, queries, CLASSES + 1, **like),
            3 * torch.randn(images, queries, H, W, **like),
        )
        for _ in range(heads)
    ]
    targets = [
        Target(
            torch.randint(0, CLASSES, (n,), generator=g),
            torch.rand(n, H, W, **like) > 0.6,
        )
        for n in segments
    ]
    return predictions, targets


def pair_losses(logits, mask):
    """BCE (mean over pixels) and dice of one predicted and one true mask."""
    x, y = logits.numpy().ravel(), mask.numpy().ravel().astype(float)
    bce = np.mean(np.maximum(x, 0) - x * y + np.log1p(np.exp(-np.abs(x))))
    p = 1 / (1 + np.exp(-x))
    return bce, 1 - (2 * np.sum(p * y) + 1) / (p.sum() + y.sum() + 1)


def dense(heads, targets, no_object=0.1):
    """The whole objective, every assignment tried."""
    segments = max(sum(len(t.classes) for t in targets), 1)
    total = 0.0
    for head in heads:
        weighted = weights = 0.0
        for i, target in enumerate(targets):
            logits = head.class_logits[i].numpy()
            log_p = logits - np.log(np.exp(logits).sum(1, keepdims=True))
            chosen, n = best_assignment(head, i, target), len(target.classes)
            for j in range(n):
                bce, dice = pair_losses(head.mask_logits[i, chosen[j]], target.masks[j])
                total += 5 * (bce + dice) / segments
            for q in range(len(logits)):
                matched = q in chosen
                wanted = target.classes[chosen.index(q)] if matched else CLASSES
                weight = 1.0 if matched else no_object
                weighted, weights = weighted - weight * log_p[q, wanted], weights + weight
        total += 2 * weighted / weights
    return total


def best_assignment(head, i, target):
    probability = head.class_logits[i].softmax(-1).numpy()

    def cost(order):
        pairs = enumerate(order)
        return sum(
            -2 * probability[q, target.classes[j]]
            + 5 * sum(pair_losses(head.mask_logits[i, q], target.masks[j]))
            for j, q in pairs
        )

    queries = range(head.class_logits.shape[1])
    return list(min(itertools.permutations(queries, len(target.classes)), key=cost))


@pytest.mark.parametrize("segments", [(2, 3), (0, 1), (1, 4)])
def test_all_pixels_as_points_give_the_dense_loss(segments):
    heads, targets = draw(0, images=2, queries=4, segments=segments, heads=3)
    losses = criterion(heads, targets, points=centres())
    assert float(losses.total) == pytest.approx(dense(heads, targets), rel=FLOAT64_SUMS)
    parts = losses.classes + losses.mask + losses.dice
    assert float(parts) == pytest.approx(float(losses.total), rel=FLOAT64_SUMS)


@pytest.mark.parametrize("seed", range(8))
def test_matching_is_the_best_of_all_permutations(seed):
    (head,), targets = draw(seed, images=2, queries=5, segments=(3, 4))
    found = match(*head, targets, Objective(), points=centres())
    for i, (queries, segments) in enumerate(found):
        order = dict(zip(segments.tolist(), queries.tolist(), strict=True))
        best = best_assignment(head, i, targets[i])
        assert [order[j] for j in range(len(best))] == best


def test_gradient_in_float64():
    heads, targets = draw(1, images=2, queries=3, segments=(2, 1), heads=2)
    logits = [x.clone().requires_grad_() for head in heads for x in head]

    def total(*flat):
        pairs = [Heads(*flat[i : i + 2]) for i in (0, 2)]
        torch.manual_seed(5)  # the same random points every time
        return criterion(pairs, targets, Objective(points=16)).total

    assert torch.autograd.gradcheck(total, logits)


def test_without_segments_all_queries_learn_no_object():
    heads, targets = draw(2, images=2, queries=3, segments=(0, 0))
    heads = [Heads(*(x.requires_grad_() for x in heads[0]))]
    losses = criterion(heads, targets)
    losses.total.backward()
    nothing = -heads[0].class_logits.log_softmax(-1)[..., -1].mean()
    total = float(losses.total.detach())
    assert total == pytest.approx(2 * float(nothing.detach()), rel=FLOAT64_SUMS)
    assert torch.isfinite(heads[0].class_logits.grad).all()


def test_more_segments_than_queries_still_counts_all_segments():
    heads, targets = draw(3, images=1, queries=2, segments=(4,))
    found = match(*heads[0], targets, Objective(), points=centres())[0]
    assert len(found.queries) == 2
    assert torch.isfinite(criterion(heads, targets, points=centres()).total)


def test_perfect_answer_costs_nothing():
    _, (target,) = draw(4, images=1, queries=1, segments=(2,))
    scale = 60.0  # so sure that sigmoid and softmax are 0 or 1 in double precision
    classes = torch.zeros(1, 2, CLASSES + 1).double()
    classes[0, [1, 0], target.classes] = scale
    masks = (target.masks.flip(0).double() - 0.5)[None] * 2 * scale
    losses = criterion([Heads(classes, masks)], [target], points=centres())
    assert float(losses.total) == pytest.approx(0, abs=FLOAT64_SUMS)


def test_most_points_lie_where_the_mask_is_uncertain():
    torch.manual_seed(0)
    logits = torch.full((3, 8, 8), 9.0)
    logits[:, :, :2] = 0.0  # a quarter of the map
    points = importance_points(logits, Objective(points=400))
    values = sample(logits[:, None], points)[:, 0]
    assert points.shape == (3, 400, 2)
    assert points.min() >= 0
    assert points.max() <= 1
    # 300 of 400 are the least certain of 1200 candidates, about 300 of which fall there.
    assert ((values < 8).float().mean(1) > 0.7).all()


def test_a_pixel_centre_reads_its_pixel():
    maps = torch.arange(30.0).view(1, 1, H, W).double()
    found = sample(maps, centres()[None])[0, 0]
    torch.testing.assert_close(found, maps.flatten(), rtol=0, atol=FLOAT64_SUMS)


def test_one_target_per_image():
    heads, targets = draw(5, images=2, queries=2, segments=(1,))
    with pytest.raises(UsageError, match="2 images but 1 targets"):
        criterion(heads, targets)
