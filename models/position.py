"""Sine position encoding, shared by the pixel decoder and the transformer decoder."""

import math

import torch
from torch import Tensor

TEMPERATURE = 10000.0
EPSILON = 1e-6
"""Added to the last coordinate before normalising, as the original does."""


def sine_position(channels: int, height: int, width: int, *, like: Tensor) -> Tensor:
    """Encodes each pixel's row and column as sines and cosines.

    Carion et al., DETR, ECCV 2020; normalised to 0..2 pi as in Mask2Former. The first half
    of the channels tells the row, the second the column.

    Returns:
        [C, H, W], in dtype and device of ``like``.
    """
    half = channels // 2
    i = torch.arange(half, dtype=like.dtype, device=like.device)
    period = TEMPERATURE ** (2 * (i // 2) / half)

    def encode(size: int) -> Tensor:
        place = torch.arange(1, size + 1, dtype=like.dtype, device=like.device)
        phase = (place / (size + EPSILON) * (2 * math.pi))[:, None] / period
        return torch.stack([phase[:, 0::2].sin(), phase[:, 1::2].cos()], -1).flatten(1).T

    rows = encode(height)[:, :, None].expand(half, height, width)
    columns = encode(width)[:, None, :].expand(half, height, width)
    return torch.cat([rows, columns])
