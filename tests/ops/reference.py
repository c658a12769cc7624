"""The two ops in float64 NumPy, written from their definitions, not from the kernels."""

import numpy as np


def softmax(x):
    x = np.exp(x - x.max(-1, keepdims=True))
    return x / x.sum(-1, keepdims=True)


def ms_deform_attn(value, sampling, levels, *, heads, points):
    """MSDeformAttn of value [N, S, C], sampling [N, S, R]; Deformable DETR, eq. 2."""
    n, s, c = value.shape
    count = heads * len(levels) * points
    offsets = sampling[..., : 2 * count].reshape(n, s, heads, len(levels), points, 2)
    weights = softmax(sampling[..., 2 * count :].reshape(n, s, heads, -1))
    weights = weights.reshape(n, s, heads, len(levels), points)
    centres = np.concatenate([centre(*level) for level in levels])
    output = np.zeros((n, s, heads, c // heads))
    image, _, head, _ = np.ogrid[:n, :1, :heads, :1]
    start = 0
    for i, (h, w) in enumerate(levels):
        grid = value[:, start : start + h * w].reshape(n, h, w, heads, c // heads)
        grid = np.pad(grid, ((0, 0), (1, 1), (1, 1), (0, 0), (0, 0)))
        place = (centres * (w, h))[:, None, None] + offsets[:, :, :, i] - 0.5
        place = np.clip(np.nan_to_num(place, nan=-1.0, posinf=1e9, neginf=-1e9), -1, (w, h))
        low = np.minimum(np.floor(place), (w - 1, h - 1)).astype(int)
        part = place - low
        for dx, dy in ((0, 0), (1, 0), (0, 1), (1, 1)):
            share = abs(1 - dx - part[..., 0]) * abs(1 - dy - part[..., 1])
            pixel = grid[image, low[..., 1] + dy + 1, low[..., 0] + dx + 1, head]
            output += ((share * weights[:, :, :, i])[..., None] * pixel).sum(3)
        start += h * w
    return output.reshape(n, s, c)


def centre(h, w):
    """(x, y) of the pixels of one level, as a share of the image, [H * W, 2]."""
    y, x = np.mgrid[:h, :w]
    return np.stack([(x + 0.5) / w, (y + 0.5) / h], -1).reshape(-1, 2)


def masked_attention(q, k, v, mask_logits, *, heads):
    """MaskedAttention: q [N, Q, C], k, v [N, S, C], mask [N, Q, S]; Mask2Former, eq. 2."""
    n, _, c = q.shape
    q, k, v = (x.reshape(n, x.shape[1], heads, c // heads) for x in (q, k, v))
    scores = np.einsum("nqmd,nsmd->nmqs", q, k) / np.sqrt(c // heads)
    hidden = mask_logits < 0
    hidden &= ~hidden.all(-1, keepdims=True)
    weights = softmax(np.where(hidden[:, None], -np.inf, scores))
    return np.einsum("nmqs,nsmd->nqmd", weights, v).reshape(n, -1, c)
