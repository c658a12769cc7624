"""MSDeformAttn the usual way, through GridSample: what the native op is measured against.

Written as transformers' Mask2Former computes it and PyTorch's exporter writes it down:
locations normalised to 0..1 and back to -1..1, one GridSample per level over [N * M, D, H, W],
the samples of all levels stacked, multiplied by their weights and summed.
"""

from collections.abc import Sequence

import numpy as np

from m2f.export.graph import Graph, Value


def centres(sizes: Sequence[tuple[int, int]]) -> np.ndarray:
    """(x, y) of every pixel of every level as a share of the image, [1, S, 1, 1, 1, 2]."""
    grids = []
    for height, width in sizes:
        y, x = np.mgrid[:height, :width]
        grids.append(np.stack([(x + 0.5) / width, (y + 0.5) / height], -1).reshape(-1, 2))
    return np.concatenate(grids).astype(np.float32)[None, :, None, None, None]


def ms_deform_attn(
    g: Graph,
    value: Value,
    sampling: Value,
    sizes: Sequence[tuple[int, int]],
    *,
    heads: int,
    points: int,
    channels: int,
) -> Value:
    """The op for one image: value [1, S, C], sampling [1, S, M * L * P * 3] to [1, S, C]."""
    levels, depth = len(sizes), channels // heads
    total = heads * levels * points
    offsets, logits = g.ops("Split", sampling, g.ints(2 * total, total), outputs=2, axis=-1)
    offsets = g.op("Reshape", offsets, g.ints(1, -1, heads, levels, points, 2))
    weights = g.op("Reshape", logits, g.ints(1, -1, heads, levels * points))
    weights = g.op("Softmax", weights, axis=-1)
    weights = g.op("Transpose", weights, perm=[0, 2, 1, 3])
    weights = g.op("Reshape", weights, g.ints(heads, 1, -1, levels * points))

    extent = np.array([(w, h) for h, w in sizes], np.float32)[None, None, None, :, None]
    shift = g.op("Div", offsets, g.constant(extent))
    locations = g.op("Add", g.constant(centres(sizes)), shift)
    grids = g.op("Sub", g.op("Mul", locations, g.constant(2.0)), g.constant(1.0))

    areas = [h * w for h, w in sizes]
    value = g.op("Reshape", value, g.ints(1, -1, heads, depth))
    maps = g.ops("Split", value, g.ints(*areas), outputs=levels, axis=1)
    samples = []
    for level, (height, width) in enumerate(sizes):
        image = g.op("Reshape", maps[level], g.ints(1, -1, channels))
        image = g.op("Transpose", image, perm=[0, 2, 1])
        image = g.op("Reshape", image, g.ints(heads, depth, height, width))
        grid = g.op("Gather", grids, g.constant(level, np.int64), axis=3)
        grid = g.op("Transpose", grid, perm=[0, 2, 1, 3, 4])
        grid = g.op("Reshape", grid, g.ints(heads, -1, points, 2))
        sampled = g.op("GridSample", image, grid, padding_mode="zeros", align_corners=0)
        samples.append(g.op("Unsqueeze", sampled, g.constant([-2], np.int64)))
    stacked = g.op("Concat", *samples, axis=-2)
    stacked = g.op("Reshape", stacked, g.ints(heads, depth, -1, levels * points))
    blended = g.op("Mul", stacked, weights)
    blended = g.op("ReduceSum", blended, g.constant([-1], np.int64), keepdims=0)
    blended = g.op("Reshape", blended, g.ints(1, channels, -1))
    return g.op("Transpose", blended, perm=[0, 2, 1])
