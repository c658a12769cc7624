"""The layers of the reference model, one function each, lowered onto ONNX ops.

A function takes the graph, the name its weights have in the checkpoint (relative to the
graph's scope), and tensors; it returns a tensor. Shapes are those of the PyTorch module of
the same purpose.
"""

import math
from collections.abc import Sequence

import numpy as np

from m2f.export.algebra import BATCH_NORM_EPSILON, conv_from_conv_and_batch_norm
from m2f.export.graph import Array, Dim, Graph, Value

GROUP_NORM_EPSILON = 1e-5
LAYER_NORM_EPSILON = 1e-5
GROUPS = 32


def linear(g: Graph, name: str, x: Value, *, bias: bool = True, call: int = 0) -> Value:
    """Maps x [..., in] to [..., out]; ``call`` numbers the module's calls in PyTorch."""
    weight = g.weight(f"{name}.weight", transposed=True)
    if not bias:
        return g.op("MatMul", x, weight, name=name)
    product = g.op("MatMul", x, weight)
    return g.op("Add", product, g.weight(f"{name}.bias"), name=_called(name, call))


def _called(name: str, call: int) -> str:
    """Name of a module's output when it was called ``call`` times before."""
    return f"{name}:{call}" if call else name


def conv(g: Graph, name: str, x: Value, *, size: int = 1, bias: bool = True) -> Value:
    """Square convolution of x [N, C, H, W] with "same" padding.

    Without a bias it is one of the convolutions that hold their norm, whose output is what
    bears the module's name; its own is called ``name``.conv.
    """
    inputs = [x, g.weight(f"{name}.weight")] + ([g.weight(f"{name}.bias")] if bias else [])
    output = name if bias else f"{name}.conv"
    return _conv(g, output, inputs, size=size, stride=1, pad=size // 2)


def patches(g: Graph, name: str, x: Value, *, size: int, scale: Array | None) -> Value:
    """Cuts x [N, C, H, W] into squares and projects each; ``scale`` as in `conv_batch_norm`."""
    kernel = g.array(f"{name}.weight")
    if scale is not None:
        kernel = (kernel * scale[:, None, None]).astype(np.float32)
    inputs = [x, g.stored(f"{name}.weight", kernel), g.weight(f"{name}.bias")]
    return _conv(g, name, inputs, size=size, stride=size, pad=0)


def conv_batch_norm(
    g: Graph, name: str, x: Value, *, size: int, stride: int, scale: Array | None, fold: bool
) -> Value:
    """A convolution and the batch norm it holds, as two nodes or one.

    Args:
        g: The graph.
        name: Of the convolution; the output is called after its norm.
        x: [N, C, H, W].
        size: Of the kernel.
        stride: In pixels.
        scale: What to multiply each input channel with, [C].
        fold: Into one convolution.
    """
    kernel = g.array(f"{name}.weight")
    if scale is not None:
        kernel = (kernel * scale[:, None, None]).astype(np.float32)
    norm = f"{name}.norm"
    parts = [f"{norm}.{part}" for part in ("weight", "bias", "running_mean", "running_var")]
    if fold:
        arrays = conv_from_conv_and_batch_norm(kernel, *map(g.array, parts))
        inputs = [
            g.stored(f"{name}.{n}", a) for n, a in zip(("weight", "bias"), arrays, strict=True)
        ]
        return _conv(g, norm, [x, *inputs], size=size, stride=stride, pad=size // 2)
    y = _conv(
        g,
        f"{name}.conv",
        [x, g.stored(f"{name}.weight", kernel)],
        size=size,
        stride=stride,
        pad=size // 2,
    )
    weights = [g.weight(part) for part in parts]
    return g.op("BatchNormalization", y, *weights, name=norm, epsilon=BATCH_NORM_EPSILON)


def _conv(
    g: Graph, name: str, inputs: Sequence[Value], *, size: int, stride: int, pad: int
) -> Value:
    return g.op(
        "Conv",
        *inputs,
        name=name,
        kernel_shape=[size, size],
        strides=[stride, stride],
        pads=[pad, pad, pad, pad],
    )


def layer_norm(g: Graph, name: str, x: Value, *, call: int = 0) -> Value:
    """Normalises the last axis; one op, whose statistics a runtime keeps in float32."""
    return g.op(
        "LayerNormalization",
        x,
        g.weight(f"{name}.weight"),
        g.weight(f"{name}.bias"),
        name=_called(name, call),
        axis=-1,
        epsilon=LAYER_NORM_EPSILON,
    )


def group_norm(g: Graph, name: str, x: Value, channels: int, size: Sequence[Dim]) -> Value:
    """Normalises x [N, C, H, W] in 32 groups.

    Written with InstanceNormalization: ONNX's own GroupNormalization had per-group scales
    until opset 21, which no TensorRT 10.3 reads.
    """
    grouped = g.op("Reshape", x, g.ints(0, GROUPS, -1))
    one, zero = g.constant(np.ones(GROUPS)), g.constant(np.zeros(GROUPS))
    y = g.op("InstanceNormalization", grouped, one, zero, epsilon=GROUP_NORM_EPSILON)
    y = g.op("Reshape", y, g.ints(-1, channels, *size))
    scale, shift = (
        g.stored(f"{name}.{part}", g.array(f"{name}.{part}").reshape(-1, 1, 1))
        for part in ("weight", "bias")
    )
    return g.op("Add", g.op("Mul", y, scale), shift, name=name)


def gelu(g: Graph, x: Value) -> Value:
    """Exact (erf) GELU; runtimes fuse these five ops back into one."""
    erf = g.op("Erf", g.op("Div", x, g.constant(math.sqrt(2.0))))
    y = g.op("Mul", x, g.op("Add", erf, g.constant(1.0)))
    return g.op("Mul", y, g.constant(0.5))


def tokens_from_map(g: Graph, x: Value, channels: int) -> Value:
    """[N, C, H, W] to [N, H * W, C]."""
    return g.op("Transpose", g.op("Reshape", x, g.ints(0, channels, -1)), perm=[0, 2, 1])


def map_from_tokens(g: Graph, x: Value, channels: int, size: Sequence[Dim]) -> Value:
    """[N, H * W, C] to [N, C, H, W]."""
    return g.op("Reshape", g.op("Transpose", x, perm=[0, 2, 1]), g.ints(0, channels, *size))


def resize(g: Graph, x: Value, factor: float, *, mode: str = "linear") -> Value:
    """Resizes [N, C, H, W] by a factor, pixel centres at half integers, no antialias."""
    nearest = mode == "nearest"
    return g.op(
        "Resize",
        x,
        "",
        g.constant([1.0, 1.0, factor, factor]),
        mode=mode,
        coordinate_transformation_mode="asymmetric" if nearest else "half_pixel",
        nearest_mode="floor" if nearest else None,
    )


def indices(g: Graph, count: Dim) -> Value:
    """0, 1, ..., count - 1 as int64 [count]."""
    zero, one = g.constant(0, np.int64), g.constant(1, np.int64)
    end = g.op("Squeeze", g.ints(count), g.constant([0], np.int64))
    return g.op("Range", zero, end, one)


def product(g: Graph, *dims: Dim) -> Dim:
    """Product of sizes."""
    total: Dim = 1
    for d in dims:
        total = d if total == 1 else g.arithmetic("Mul", total, d)
    return total


def as_float(g: Graph, x: Value) -> Value:
    """Casts to float32."""
    return g.op("Cast", x, to=1)


def sine_position(g: Graph, channels: int, height: Dim, width: Dim) -> Value:
    """Position encoding of every pixel, [H * W, C]; see `m2f.models.position`."""
    half = channels // 2
    i = np.arange(half)
    period = g.constant(10000.0 ** (2 * (i // 2) / half))
    is_sine = g.constant(i % 2 == 0, np.bool_)

    def encode(size: Dim) -> Value:
        place = as_float(g, g.op("Add", indices(g, size), g.constant(1, np.int64)))
        extent = g.op("Add", as_float(g, g.ints(size)), g.constant(1e-6))
        turn = g.op("Mul", g.op("Div", place, extent), g.constant(2 * math.pi))
        phase = g.op("Div", g.op("Unsqueeze", turn, g.constant([1], np.int64)), period)
        return g.op("Where", is_sine, g.op("Sin", phase), g.op("Cos", phase))

    rows = g.op("Unsqueeze", encode(height), g.constant([1], np.int64))
    columns = g.op("Unsqueeze", encode(width), g.constant([0], np.int64))
    full = g.ints(height, width, half)
    grid = g.op("Concat", g.op("Expand", rows, full), g.op("Expand", columns, full), axis=-1)
    return g.op("Reshape", grid, g.ints(-1, channels))
