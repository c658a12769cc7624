"""The two custom ops: as nodes of the `m2f` domain, and as standard ONNX.

The bodies below are the ops' formal definitions. The portable form inlines them; the plugin
form carries them as model-local functions beside its nodes, so that a runtime without our
kernels can still run the file. Neither holds GridSample, which TensorRT has miscompiled
since 10.14 (NVIDIA/TensorRT#4813): samples are gathered and blended here.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import helper

from m2f.bundle import Form
from m2f.export.algebra import Algebra
from m2f.export.graph import OPSET, Dim, Graph, Value
from m2f.export.layers import as_float, indices, product
from m2f.plugins import MASKED_ATTENTION, MS_DEFORM_ATTN, OpSpec

INT32 = int(onnx.TensorProto.INT32)


@dataclass
class Lowering:
    """How a network is written down.

    Attributes:
        form: How custom ops enter: "plugin" or "portable".
        algebra: Which exact rewrites to make.
        functions: Bodies of the ops used so far, plugin form only.
    """

    form: Form
    algebra: Algebra = field(default_factory=Algebra)
    functions: dict[str, onnx.FunctionProto] = field(default_factory=dict)

    def ms_deform_attn(
        self,
        g: Graph,
        value: Value,
        sampling: Value,
        levels: Sequence[Value],
        sizes: Sequence[tuple[Dim, Dim]],
        *,
        heads: int,
        points: int,
        channels: int,
        value_scale: float | None = None,
    ) -> Value:
        """Deformable attention of the levels' pixels over the levels; see its op.toml.

        Args:
            g: The graph.
            value: [N, S, C], float32; int8 where it has a scale.
            sampling: [N, S, M * L * P * 3].
            levels: The feature maps the levels came from, [N, C, H, W] each.
            sizes: Height and width of each.
            heads: M.
            points: P.
            channels: C.
            value_scale: What one step of an int8 value is worth. A model has it at all of
                these ops or at none, for they share one function.
        """
        counts = {"heads": heads, "points": points, "channels": channels}
        if self.form == "portable":
            if value_scale is not None:
                value = _dequantised(g, value, g.constant(value_scale))
            return ms_deform_attn_body(g, value, sampling, sizes, **counts)
        flat = [d for size in sizes for d in size]
        fixed = all(isinstance(d, int) for d in flat)
        inputs = [value, sampling] + ([] if fixed else list(levels))
        attributes = {
            "heads": heads,
            "points": points,
            "level_shapes": flat if fixed else None,
            "value_scale": value_scale,
        }
        if MS_DEFORM_ATTN.name not in self.functions:
            body, names = Graph(is_function=True), ["value", "sampling"]
            inside: Sequence[tuple[Dim, Dim]] = sizes
            if not fixed:
                names += [f"level_{i}" for i in range(len(levels))]
                inside = [_spatial_size(body, name) for name in names[2:]]
            real = "value"
            if value_scale is not None:
                real = _dequantised(body, "value", _attribute(body, "value_scale"))
            output = ms_deform_attn_body(body, real, "sampling", inside, **counts)
            self._define(MS_DEFORM_ATTN, body, names, output, attributes)
        return _node(g, MS_DEFORM_ATTN, inputs, attributes)

    def masked_attention(
        self, g: Graph, inputs: Sequence[Value], *, heads: int, channels: int
    ) -> Value:
        """Attention inside each query's mask; see its op.toml.

        Args:
            g: The graph.
            inputs: q [N, Q, C], k [N, S, C], v [N, S, C], mask logits [N, Q, S].
            heads: M.
            channels: C.
        """
        if self.form == "portable":
            return masked_attention_body(g, *inputs, heads=heads, channels=channels)
        attributes = {"heads": heads}
        if MASKED_ATTENTION.name not in self.functions:
            body = Graph(is_function=True)
            names = ["q", "k", "v", "mask_logits"]
            output = masked_attention_body(body, *names, heads=heads, channels=channels)
            self._define(MASKED_ATTENTION, body, names, output, attributes)
        return _node(g, MASKED_ATTENTION, inputs, attributes)

    def _define(
        self,
        spec: OpSpec,
        body: Graph,
        inputs: Sequence[str],
        output: Value,
        attributes: dict[str, Any],
    ) -> None:
        """Keeps a body as a function; all calls in one model have the same attributes."""
        body.nodes.append(helper.make_node("Identity", [output], ["output"]))
        body.prune(["output"])
        given = [name for name, value in attributes.items() if value is not None]
        self.functions[spec.name] = helper.make_function(
            spec.domain,
            spec.name,
            list(inputs),
            ["output"],
            body.nodes,
            [helper.make_opsetid("", OPSET)],
            [*given, *_TENSORRT],
        )


_TENSORRT = {"plugin_version": "1", "plugin_namespace": "m2f"}
"""What TensorRT's parser finds a plugin by; before 10.10 it did not look at the domain."""


def _node(g: Graph, spec: OpSpec, inputs: Sequence[Value], attributes: dict[str, Any]) -> Value:
    name = spec.name
    return g.op(name, *inputs, name=name, domain=spec.domain, **attributes, **_TENSORRT)


def _attribute(body: Graph, name: str) -> Value:
    """A float attribute of the node that calls the function, as a tensor."""
    node = helper.make_node("Constant", [], [name], name=name)
    node.attribute.add(name="value_float", ref_attr_name=name, type=onnx.AttributeProto.FLOAT)
    body.nodes.append(node)
    return name


def _dequantised(g: Graph, value: Value, scale: Value) -> Value:
    """An int8 value times its scale.

    The zero point is written out: without one ONNX Runtime (1.32) moves the node past others
    as if the value were uint8.
    """
    return g.op("DequantizeLinear", value, scale, g.constant(0, np.int8))


def _spatial_size(g: Graph, feature_map: Value) -> tuple[Dim, Dim]:
    """Height and width of [N, C, H, W]."""
    shape = g.op("Shape", feature_map)
    axis = g.constant([0], np.int64)
    height, width = (
        g.op("Slice", shape, g.constant([i], np.int64), g.constant([i + 1], np.int64), axis)
        for i in (2, 3)
    )
    return height, width


def ms_deform_attn_body(
    g: Graph,
    value: Value,
    sampling: Value,
    sizes: Sequence[tuple[Dim, Dim]],
    *,
    heads: int,
    points: int,
    channels: int,
) -> Value:
    """MSDeformAttn in standard ops: value [N, S, C], sampling [N, S, R] to [N, S, C].

    Every sample is four rows of value, gathered by index and blended by one small matrix
    product per query, head and level. Coordinates are in pixels of their level, so the
    module's division of offsets by the level's size has nothing to undo.
    """
    levels = len(sizes)
    total = heads * levels * points
    offsets, logits = g.ops(
        "Split", sampling, g.ints(2 * total, total), outputs=2, name="sampling", axis=-1
    )
    offsets = g.op("Reshape", offsets, g.ints(0, -1, heads, levels, points, 2))
    logits = g.op("Reshape", logits, g.ints(0, -1, heads, levels * points))
    weights = g.op("Softmax", logits, axis=-1)
    weights = g.op("Reshape", weights, g.ints(0, -1, heads, levels, points))
    rows = g.op("Reshape", value, g.ints(-1, channels // heads))  # row (n * S + s) * M + m

    areas = [product(g, *size) for size in sizes]
    positions = g.arithmetic("Add", g.arithmetic("Add", areas[0], areas[1]), areas[2])
    batch = _first_size(g, value)
    image = g.op("Mul", indices(g, batch), g.ints(positions))  # first row of each image
    image = g.op("Reshape", g.op("Cast", image, to=INT32), g.ints(-1, 1, 1, 1))
    head = g.constant(np.arange(heads).reshape(1, 1, heads, 1), np.int32)
    centres = _cell_centres(g, sizes)

    start: Dim = 0
    blends = []
    for level, (height, width) in enumerate(sizes):
        place = g.constant(level, np.int64)
        offset = g.op("Gather", offsets, place, axis=3)  # [N, S, M, P, 2]
        weight = g.op("Gather", weights, place, axis=3)  # [N, S, M, P]
        extent = as_float(g, g.ints(width, height))
        centre = g.op("Mul", centres, extent)  # [S, 2], pixels of this level
        centre = g.op("Reshape", centre, g.ints(1, -1, 1, 1, 2))
        xy = g.op("Sub", g.op("Add", centre, offset), g.constant(0.5))
        index, share = _corners(g, xy, height, width)
        base = g.op("Add", image, g.op("Cast", g.ints(start), to=INT32))
        row = g.op(
            "Add", g.op("Mul", g.op("Add", index, base), g.constant(heads, np.int32)), head
        )
        share = g.op("Mul", share, g.op("Concat", weight, weight, weight, weight, axis=-1))
        samples = g.op("Gather", rows, row, axis=0)  # [N, S, M, 4 * P, D]
        share = g.op("Unsqueeze", share, g.constant([3], np.int64))
        blends.append(g.op("MatMul", share, samples))  # [N, S, M, 1, D]
        start = areas[level] if level == 0 else g.arithmetic("Add", start, areas[level])
    summed = g.op("Add", g.op("Add", blends[0], blends[1]), blends[2])
    return g.op("Reshape", summed, g.ints(0, -1, channels))


def _first_size(g: Graph, x: Value) -> Dim:
    """Size of the first axis."""
    zero, one = g.constant([0], np.int64), g.constant([1], np.int64)
    return g.op("Slice", g.op("Shape", x), zero, one, zero)


def _cell_centres(g: Graph, sizes: Sequence[tuple[Dim, Dim]]) -> Value:
    """(x, y) of every pixel of every level, as a share of the image, [S, 2]."""
    parts = []
    for height, width in sizes:
        axes = []
        for size, column in ((width, False), (height, True)):
            centre = g.op("Add", as_float(g, indices(g, size)), g.constant(0.5))
            centre = g.op("Div", centre, as_float(g, g.ints(size)))
            shape = g.ints(-1, 1, 1) if column else g.ints(1, -1, 1)
            centre = g.op("Reshape", centre, shape)
            axes.append(g.op("Expand", centre, g.ints(height, width, 1)))
        parts.append(g.op("Reshape", g.op("Concat", *axes, axis=-1), g.ints(-1, 2)))
    return g.op("Concat", *parts, axis=0)


def _corners(g: Graph, xy: Value, height: Dim, width: Dim) -> tuple[Value, Value]:
    """The four pixels around each point.

    Args:
        g: The graph.
        xy: [N, S, M, P, 2], pixels, centres of pixels at integers.
        height: Of the level.
        width: Of the level.

    Returns:
        Row of each corner within the level, int32, always a valid one, and its bilinear
        share, 0 where the corner lies outside; both [N, S, M, 4 * P].
    """
    x, y = (g.op("Gather", xy, g.constant(i, np.int64), axis=-1) for i in (0, 1))
    near_x, far_x, share_x, rest_x = _neighbours(g, x, width)
    near_y, far_y, share_y, rest_y = _neighbours(g, y, height)
    stride = g.op("Cast", g.ints(width), to=INT32)
    index, share = [], []
    for row, row_share in ((near_y, rest_y), (far_y, share_y)):
        row_start = g.op("Mul", row, stride)
        for column, column_share in ((near_x, rest_x), (far_x, share_x)):
            index.append(g.op("Add", row_start, column))
            share.append(g.op("Mul", row_share, column_share))
    return g.op("Concat", *index, axis=-1), g.op("Concat", *share, axis=-1)


def _neighbours(g: Graph, place: Value, size: Dim) -> tuple[Value, Value, Value, Value]:
    """The two pixels around a coordinate along one axis, and the share of each.

    Returns:
        Index of the nearer-to-zero and of the other pixel, int32 in 0..size - 1; share of
        the other, then of the first; a pixel that lies outside has share 0.
    """
    extent = as_float(g, g.ints(size))
    last = g.op("Sub", extent, g.constant(1.0))
    zero = g.constant(0.0)
    # One pixel beyond the border every share is 0 already; clamping there changes nothing
    # and keeps the cast to int32 defined for any offset a network may predict.
    place = g.op("Min", g.op("Max", place, g.constant(-1.0)), extent)
    low = g.op("Floor", place)
    high = g.op("Add", low, g.constant(1.0))
    fraction = g.op("Sub", place, low)
    shares, pixels = [], []
    for pixel, share in ((low, g.op("Sub", g.constant(1.0), fraction)), (high, fraction)):
        inside = g.op("Max", g.op("Min", pixel, last), zero)
        is_inside = as_float(g, g.op("Equal", inside, pixel))
        shares.append(g.op("Mul", share, is_inside))
        pixels.append(g.op("Cast", inside, to=INT32))
    return pixels[0], pixels[1], shares[1], shares[0]


def masked_attention_body(
    g: Graph, q: Value, k: Value, v: Value, mask_logits: Value, *, heads: int, channels: int
) -> Value:
    """MaskedAttention in standard ops: q [N, Q, C], k and v [N, S, C] to [N, Q, C]."""
    depth = channels // heads
    q, k, v = (split_heads(g, x, heads, channels) for x in (q, k, v))
    q = g.op("Mul", q, g.constant(depth**-0.5))
    scores = g.op("MatMul", q, g.op("Transpose", k, perm=[0, 1, 3, 2]))
    best = g.op("ReduceMax", mask_logits, axes=[-1], keepdims=1)
    zero = g.constant(0.0)
    hidden = g.op("And", g.op("Less", mask_logits, zero), g.op("Not", g.op("Less", best, zero)))
    hidden = g.op("Unsqueeze", hidden, g.constant([1], np.int64))
    scores = g.op("Where", hidden, g.constant(-np.inf), scores)
    return merge_heads(g, g.op("MatMul", g.op("Softmax", scores, axis=-1), v), channels)


def split_heads(g: Graph, x: Value, heads: int, channels: int) -> Value:
    """[N, Q, C] to [N, M, Q, D]."""
    x = g.op("Reshape", x, g.ints(0, -1, heads, channels // heads))
    return g.op("Transpose", x, perm=[0, 2, 1, 3])


def merge_heads(g: Graph, x: Value, channels: int) -> Value:
    """[N, M, Q, D] to [N, Q, C]."""
    return g.op("Reshape", g.op("Transpose", x, perm=[0, 2, 1, 3]), g.ints(0, -1, channels))
