"""ResNet and Swin, lowered; the mathematics is in `m2f.models.resnet` and `.swin`."""

from collections.abc import Sequence

import numpy as np

from m2f.config import ResNetConfig, SwinConfig
from m2f.export.graph import Array, Dim, Graph, Value
from m2f.export.layers import conv_batch_norm, gelu, indices, layer_norm, linear, patches

Size = tuple[Dim, Dim]

HIDDEN = -1e4
"""Added to scores of other regions. Swin's own code adds -100, which leaves weights of about
1e-44: nothing beside one, but so small that processors take a slow path for each."""


def resnet(
    g: Graph, config: ResNetConfig, x: Value, *, scale: Array | None, folds: bool
) -> list[Value]:
    """Images [N, 3, H, W] to res2..res5.

    Args:
        g: The graph.
        config: Depth and widths.
        x: The images, without their mean; normalised, if there is no ``scale``.
        scale: What to multiply each channel of x with, [3].
        folds: Fold batch norms into convolutions.
    """

    def conv_norm(name: str, x: Value, size: int, stride: int = 1) -> Value:
        first = scale if name.startswith("stem") else None
        return conv_batch_norm(g, name, x, size=size, stride=stride, scale=first, fold=folds)

    def block(x: Value, *, stride: int, changes: bool) -> tuple[Value, Value]:
        if config.block == "bottleneck":
            y = g.op("Relu", conv_norm("conv1", x, 1))
            y = g.op("Relu", conv_norm("conv2", y, 3, stride))
            y = conv_norm("conv3", y, 1)
        else:
            y = g.op("Relu", conv_norm("conv1", x, 3, stride))
            y = conv_norm("conv2", y, 3)
        shortcut = conv_norm("shortcut", x, 1, stride) if changes else x
        return y, shortcut

    x = g.op("Relu", conv_norm("stem.conv1", x, 7, 2))
    x = g.op("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1], name="stem")
    features, inputs = [], config.width
    for stage, (count, outputs) in enumerate(zip(config.blocks, config.channels, strict=True)):
        for b in range(count):
            stride = 2 if stage and not b else 1
            name = f"res{stage + 2}.{b}"
            with g.scope(name):
                y, shortcut = block(x, stride=stride, changes=inputs != outputs or stride != 1)
            x = g.op("Relu", g.op("Add", y, shortcut), name=name)
            inputs = outputs
        features.append(x)
    return features


def swin(
    g: Graph, config: SwinConfig, x: Value, sizes: Sequence[Size], *, scale: Array | None
) -> list[Value]:
    """Images [N, 3, H, W] to res2..res5.

    Args:
        g: The graph.
        config: Depths, widths, window.
        x: The images; H and W are multiples of 32, so only windows ever need padding.
        sizes: Height and width of res2..res5.
        scale: What to multiply each channel of x with, [3]; None: x is normalised.
    """
    with g.scope("patch_embed"):
        x = patches(g, "proj", x, size=4, scale=scale)
        x = layer_norm(g, "norm", g.op("Transpose", x, perm=[0, 2, 3, 1]))
    features = []
    for stage, (channels, size) in enumerate(zip(config.channels, sizes, strict=True)):
        with g.scope(f"layers.{stage}"):
            windows = Windows(g, config.window, size, channels, config.heads[stage])
            for b in range(config.depths[stage]):
                x = _swin_block(g, f"blocks.{b}", x, windows, shifted=b % 2 == 1)
        y = layer_norm(g, f"norm{stage}", x)
        features.append(g.op("Transpose", y, perm=[0, 3, 1, 2], name=f"res{stage + 2}"))
        if stage < 3:
            with g.scope(f"layers.{stage}.downsample"):
                x = layer_norm(g, "norm", _stacked(g, x, channels, sizes[stage + 1]))
                x = linear(g, "reduction", x, bias=False)
    return features


def _stacked(g: Graph, x: Value, channels: int, size: Size) -> Value:
    """2x2 neighbours side by side, columns before rows: [N, H, W, C] to [N, *size, 4 C].

    One transposition, which moves whole pixels; slices would each read every cache line.
    """
    h, w = size
    pairs = g.op("Reshape", x, g.ints(0, h, 2, w, 2, channels))
    corners = g.op("Transpose", pairs, perm=[0, 1, 3, 4, 2, 5])
    return g.op("Reshape", corners, g.ints(0, h, w, 4 * channels))


class Windows:
    """Cuts the maps of one Swin stage into windows and puts them back.

    Args:
        g: The graph.
        window: Side of a window, w.
        size: Height and width of the map.
        channels: C.
        heads: M.
    """

    def __init__(self, g: Graph, window: int, size: Size, channels: int, heads: int) -> None:
        self.window, self.channels, self.heads = window, channels, heads
        self.size = size
        self.counts = tuple(self._windows_along(g, d) for d in size)
        self.padded = tuple(g.arithmetic("Mul", n, window) for n in self.counts)
        self.mask = self._shift_mask(g)

    @property
    def is_padded(self) -> bool:
        """Whether the map may have to grow to whole windows."""
        return self.padded != self.size or any(isinstance(d, str) for d in self.size)

    def pad(self, g: Graph, x: Value) -> Value:
        """Zero-pads [N, H, W, C] right and bottom to whole windows."""
        if not self.is_padded:
            return x
        grow = [g.arithmetic("Sub", p, d) for p, d in zip(self.padded, self.size, strict=True)]
        return g.op("Pad", x, g.ints(0, 0, 0, 0, 0, *grow, 0))

    def crop(self, g: Graph, x: Value) -> Value:
        """Undoes `pad`."""
        if not self.is_padded:
            return x
        return g.op("Slice", x, g.ints(0, 0), g.ints(*self.size), g.ints(1, 2))

    def split(self, g: Graph, x: Value) -> Value:
        """[N, H, W, C] to [N * windows, w * w, C]."""
        (rows, columns), w = self.counts, self.window
        x = g.op("Reshape", x, g.ints(-1, rows, w, columns, w, self.channels))
        x = g.op("Transpose", x, perm=[0, 1, 3, 2, 4, 5])
        return g.op("Reshape", x, g.ints(-1, w * w, self.channels))

    def join(self, g: Graph, x: Value) -> Value:
        """Undoes `split`."""
        (rows, columns), w = self.counts, self.window
        x = g.op("Reshape", x, g.ints(-1, rows, columns, w, w, self.channels))
        x = g.op("Transpose", x, perm=[0, 1, 3, 2, 4, 5])
        return g.op("Reshape", x, g.ints(-1, *self.padded, self.channels))

    def _windows_along(self, g: Graph, size: Dim) -> Dim:
        up = g.arithmetic("Add", size, self.window - 1)
        return g.arithmetic("Div", up, self.window)

    def _shift_mask(self, g: Graph) -> Value:
        """What to add to the scores of shifted windows, [windows, 1, w * w, w * w]."""
        regions = []
        for axis, size in enumerate(self.padded):
            i = indices(g, size)
            bands = [
                g.op("Cast", g.op("GreaterOrEqual", i, g.ints(_less(g, size, by))), to=6)
                for by in (self.window, self.window // 2)
            ]
            region = g.op("Add", *bands)
            regions.append(
                g.op("Reshape", region, g.ints(-1, 1) if axis == 0 else g.ints(1, -1))
            )
        numbers = g.op("Add", g.op("Mul", regions[0], g.constant(3, np.int32)), regions[1])
        (rows, columns), w = self.counts, self.window
        numbers = g.op("Reshape", numbers, g.ints(rows, w, columns, w))
        numbers = g.op("Transpose", numbers, perm=[0, 2, 1, 3])
        queries = g.op("Reshape", numbers, g.ints(-1, 1, w * w, 1))
        keys = g.op("Reshape", numbers, g.ints(-1, 1, 1, w * w))
        together = g.op("Equal", queries, keys)
        return g.op("Where", together, g.constant(0.0), g.constant(HIDDEN))


def _less(g: Graph, size: Dim, by: int) -> Dim:
    return g.arithmetic("Sub", size, by)


def _swin_block(g: Graph, name: str, x: Value, windows: Windows, *, shifted: bool) -> Value:
    """Window attention and an MLP around [N, H, W, C]."""
    shift = windows.window // 2 if shifted else 0
    with g.scope(name):
        y = windows.pad(g, layer_norm(g, "norm1", x))
        y = windows.split(g, _rolled(g, y, shift))
        with g.scope("attn"):
            y = _window_attention(g, y, windows, windows.mask if shifted else None)
        y = windows.crop(g, _rolled(g, windows.join(g, y), -shift))
        x = g.op("Add", x, y)
        y = gelu(g, linear(g, "mlp.fc1", layer_norm(g, "norm2", x)))
        y = linear(g, "mlp.fc2", y)
    return g.op("Add", x, y, name=name)


def _rolled(g: Graph, x: Value, shift: int) -> Value:
    """Rolls rows and columns of [N, H, W, C] towards the origin (away, if negative)."""
    if not shift:
        return x
    start, end = g.constant([0], np.int64), g.constant([2**31 - 1], np.int64)
    cut = g.constant([shift], np.int64)
    for axis in (1, 2):
        along = g.constant([axis], np.int64)
        head = g.op("Slice", x, start, cut, along)
        tail = g.op("Slice", x, cut, end, along)
        x = g.op("Concat", tail, head, axis=axis)
    return x


def _window_attention(g: Graph, x: Value, windows: Windows, mask: Value | None) -> Value:
    """Self-attention within windows [B, T, C]; ``mask`` is [windows, 1, T, T]."""
    tokens, heads, c = windows.window**2, windows.heads, windows.channels
    depth = c // heads
    qkv = g.op("Reshape", linear(g, "qkv", x), g.ints(-1, tokens, 3, heads, depth))
    qkv = g.op("Transpose", qkv, perm=[2, 0, 3, 1, 4])
    q, k, v = (g.op("Gather", qkv, g.constant(i, np.int64), axis=0) for i in range(3))
    q = g.op("Mul", q, g.constant(depth**-0.5))
    scores = g.op("MatMul", q, g.op("Transpose", k, perm=[0, 1, 3, 2]))
    scores = g.op("Add", scores, _position_bias(g, windows.window, heads))
    if mask is not None:
        per_image = g.arithmetic("Mul", *windows.counts)
        split = g.ints(-1, per_image, heads, tokens, tokens)
        scores = g.op("Add", g.op("Reshape", scores, split), mask)
        scores = g.op("Reshape", scores, g.ints(-1, heads, tokens, tokens))
    y = g.op("MatMul", g.op("Softmax", scores, axis=-1), v)
    y = g.op("Reshape", g.op("Transpose", y, perm=[0, 2, 1, 3]), g.ints(-1, tokens, c))
    return linear(g, "proj", y)


def _position_bias(g: Graph, window: int, heads: int) -> Value:
    """The learnt bias of each head and pair of tokens, [M, T, T], looked up at export."""
    i = np.arange(window**2)
    y, x = i // window, i % window
    dy, dx = y[:, None] - y[None, :], x[:, None] - x[None, :]
    index = (dy + window - 1) * (2 * window - 1) + dx + window - 1
    table = g.array("relative_position_bias_table")
    assert table.shape == ((2 * window - 1) ** 2, heads)
    return g.stored("relative_position_bias", table[index].transpose(2, 0, 1))
