"""Deformable attention for training small images on a CPU: the same numbers, sooner.

Blending bilinear samples is linear in the values, so for each head it is one sparse matrix
[Q, S] times the values. For small pictures S is a few hundred, and filling that matrix and
multiplying is far cheaper than gathering all samples, forwards and backwards. Memory grows
with S^2: not for large pictures, not for export.
"""

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor

from m2f.models import msdeform
from m2f.models.msdeform import Sizes


def blend_by_matrix(value: Tensor, sizes: Sizes, locations: Tensor, weights: Tensor) -> Tensor:
    """Blends bilinear samples of every level; see `m2f.models.msdeform`.

    Args:
        value: [N, S, M, D].
        sizes: Height and width of each level.
        locations: [N, Q, M, L, P, 2], (x, y) in 0..1.
        weights: [N, Q, M, L, P].

    Returns:
        [N, Q, M * D], in the dtype of ``value``.
    """
    n, s, m, d = value.shape
    q = locations.shape[1]
    width = torch.tensor([w for _, w in sizes]).to(locations)[:, None]
    height = torch.tensor([h for h, _ in sizes]).to(locations)[:, None]
    starts = torch.tensor([0, *(h * w for h, w in sizes)]).cumsum(0)[:-1, None].to(locations)

    x = locations[..., 0] * width - 0.5  # [N, Q, M, L, P], pixels
    y = locations[..., 1] * height - 0.5
    left, top = x.detach().floor(), y.detach().floor()
    right_share, bottom_share = x - left, y - top
    places, shares = [], []
    for down in (0, 1):
        row = top + down
        in_rows = (row >= 0) & (row < height)
        row_share = weights * (bottom_share if down else 1 - bottom_share) * in_rows
        row_start = row.clamp(min=0).minimum(height - 1) * width + starts
        for along in (0, 1):
            column = left + along
            inside = (column >= 0) & (column < width)
            shares.append(row_share * (right_share if along else 1 - right_share) * inside)
            places.append(row_start + column.clamp(min=0).minimum(width - 1))
    # Below 2^24 cells the places are exact in float32. NaN would be a place beyond all ends;
    # its share is NaN too, and tells.
    index = torch.stack(places, -1).to(torch.int64).transpose(1, 2).reshape(n * m, q, -1)
    index.clamp_(0, s - 1)
    share = torch.stack(shares, -1).transpose(1, 2).reshape(n * m, q, -1)
    matrix = share.new_zeros(n * m, q, s).scatter_add(2, index, share)
    values = value.transpose(1, 2).reshape(n * m, s, d)
    out = matrix.to(value.dtype) @ values
    blended: Tensor = out.view(n, m, q, d).transpose(1, 2).flatten(2)
    return blended


@contextlib.contextmanager
def matrix_attention() -> Iterator[None]:
    """Within it, every model's deformable attention blends by matrix."""
    definition = msdeform.deformable_attention
    msdeform.deformable_attention = blend_by_matrix
    try:
        yield
    finally:
        msdeform.deformable_attention = definition
