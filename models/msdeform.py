"""Multi-scale deformable attention (Zhu et al., ICLR 2021, eq. 2), written to be read.

Each query looks at a few points around its own place on every level, blends what it finds
there with weights it predicts, and does so once per head. This is the definition that the
exported graph and every native kernel are held to; it is not fast.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from m2f.config import LEVELS

Sizes = list[tuple[int, int]]
"""Height and width of each level, pixels, in the order of the concatenated tokens."""


def reference_points(sizes: Sizes, *, like: Tensor) -> Tensor:
    """Centre of every token's own cell, as a share of the image.

    The queries of the encoder are the pixels of the levels themselves, so these are known
    without being predicted.

    Returns:
        [S, 2], (x, y) in 0..1, in dtype and device of ``like``.
    """
    points = []
    for h, w in sizes:
        y = (torch.arange(h, dtype=like.dtype, device=like.device) + 0.5) / h
        x = (torch.arange(w, dtype=like.dtype, device=like.device) + 0.5) / w
        points.append(torch.stack([x.expand(h, w), y[:, None].expand(h, w)], -1).flatten(0, 1))
    return torch.cat(points)


def deformable_attention(
    value: Tensor, sizes: Sizes, locations: Tensor, weights: Tensor
) -> Tensor:
    """Blends bilinear samples of every level.

    Args:
        value: [N, S, M, D], the levels concatenated, row-major each.
        sizes: Height and width of each level; their products sum to S.
        locations: [N, Q, M, L, P, 2], (x, y) in 0..1 over each level, pixel centres at
            (i + 0.5) / size; what lies outside reads zero.
        weights: [N, Q, M, L, P].

    Returns:
        [N, Q, M * D].
    """
    n, _, m, d = value.shape
    q, p = locations.shape[1], locations.shape[4]
    grid = (2 * locations - 1).transpose(1, 2).flatten(0, 1)  # [N*M, Q, L, P, 2], -1..1
    levels = torch.split(value, [h * w for h, w in sizes], dim=1)
    samples = [
        F.grid_sample(
            level.permute(0, 2, 3, 1).reshape(n * m, d, h, w),
            grid[:, :, i],
            align_corners=False,
        )
        for i, (level, (h, w)) in enumerate(zip(levels, sizes, strict=True))
    ]  # each [N*M, D, Q, P]
    blend = weights.transpose(1, 2).reshape(n * m, 1, q, len(sizes) * p)
    out = (torch.cat(samples, -1) * blend).sum(-1)
    return out.view(n, m * d, q).transpose(1, 2)


class MSDeformAttn(nn.Module):
    """Predicts where to look and how much, looks, and projects the blend.

    Args:
        channels: C of queries and values.
        heads: M.
        points: P, per head and level.
    """

    def __init__(self, channels: int, heads: int, points: int) -> None:
        super().__init__()
        self.heads, self.points = heads, points
        self.sampling_offsets = nn.Linear(channels, heads * LEVELS * points * 2)
        self.attention_weights = nn.Linear(channels, heads * LEVELS * points)
        self.value_proj = nn.Linear(channels, channels)
        self.output_proj = nn.Linear(channels, channels)
        self._initialise()

    def forward(self, query: Tensor, source: Tensor, sizes: Sizes) -> Tensor:
        """Lets every token look around itself.

        Args:
            query: [N, S, C], tokens with their position added.
            source: [N, S, C], tokens.
            sizes: Height and width of each level.
        """
        n, s, c = source.shape
        shape = (n, s, self.heads, LEVELS, self.points)
        value = self.value_proj(source).view(n, s, self.heads, c // self.heads)
        offsets = self.sampling_offsets(query).view(*shape, 2)  # pixels of their level
        logits = self.attention_weights(query).view(n, s, self.heads, LEVELS * self.points)
        extent = torch.tensor([(w, h) for h, w in sizes], dtype=query.dtype).to(query.device)
        centres = reference_points(sizes, like=query)[:, None, None, None, :]
        locations = centres + offsets / extent[:, None, :]
        weights = logits.softmax(-1).view(shape)
        out: Tensor = self.output_proj(deformable_attention(value, sizes, locations, weights))
        return out

    def _initialise(self) -> None:
        """Starts each head looking its own way, further with each point (as the paper)."""
        with torch.no_grad():
            nn.init.zeros_(self.sampling_offsets.weight)
            angle = torch.arange(self.heads) * (2.0 * math.pi / self.heads)
            ray = torch.stack([angle.cos(), angle.sin()], -1)
            ray = ray / ray.abs().amax(-1, keepdim=True)
            steps = torch.arange(1, self.points + 1)[None, None, :, None]
            bias = (ray[:, None, None, :] * steps).expand(-1, LEVELS, -1, -1)
            self.sampling_offsets.bias.copy_(bias.reshape(-1))
            nn.init.zeros_(self.attention_weights.weight)
            nn.init.zeros_(self.attention_weights.bias)
            for linear in (self.value_proj, self.output_proj):
                nn.init.xavier_uniform_(linear.weight)
                nn.init.zeros_(linear.bias)
