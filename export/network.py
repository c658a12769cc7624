"""The whole network as one ONNX graph: from 8-bit images to class and mask logits."""

from collections.abc import Mapping

import numpy as np
import onnx
from onnx import helper

from m2f.bundle import Form, InputProfile
from m2f.config import SIZE_DIVISOR, ModelConfig, Preprocess, ResNetConfig
from m2f.export.algebra import ALL, Algebra
from m2f.export.backbones import resnet, swin
from m2f.export.graph import IR_VERSION, OPSET, Array, Dim, Graph, Value
from m2f.export.layers import as_float, indices
from m2f.export.ops import Lowering
from m2f.export.pixel_decoder import pixel_decoder
from m2f.export.transformer_decoder import ATTENTION_LOGITS, TransformerDecoder
from m2f.plugins import OPS

IMAGE = "image"
IMAGE_SIZE = "image_size"
CLASS_LOGITS = "class_logits"
MASK_LOGITS = "mask_logits"

WHOLE_IMAGE = 1 << 30
"""Default of `image_size`: larger than any image, so that all of it is valid."""


def onnx_from_weights(
    config: ModelConfig,
    weights: Mapping[str, Array],
    *,
    preprocess: Preprocess,
    profile: InputProfile,
    form: Form,
    algebra: Algebra = ALL,
) -> tuple[onnx.ModelProto, dict[str, Array]]:
    """Writes a network down as ONNX.

    Inputs of the graph: `image` uint8 [N, H, W, 3], RGB; and optionally `image_size` int64
    [N, 2], the height and width of the valid part of each image, which has a default (all of
    it). Outputs: `class_logits` float32 [N, Q, K + 1] and `mask_logits` float32
    [N, Q, H'/4, W'/4], H' and W' being H and W rounded up to multiples of 32.

    Args:
        config: The model.
        weights: Its arrays, float32, by our names.
        preprocess: Mean and standard deviation, which go into the graph.
        profile: Sizes to accept; fixed ones are built in.
        form: "plugin" or "portable".
        algebra: Which exact rewrites to make.

    Returns:
        The model without its initializers' data, and that data by name.

    Raises:
        ExportError: A weight is missing.
    """
    g = Graph(weights)
    lowering = Lowering(form, algebra)
    batch, height, width = _input_size(g, profile)
    x, padded = _network_input(g, preprocess, height, width, is_scaled=not algebra.pixel_scale)
    scale = 1 / np.array(preprocess.std) if algebra.pixel_scale else None
    sizes = [
        (_divided(g, padded[0], 4 << stage), _divided(g, padded[1], 4 << stage))
        for stage in range(4)
    ]
    with g.scope("backbone"):
        if isinstance(config.backbone, ResNetConfig):
            features = resnet(g, config.backbone, x, scale=scale, folds=algebra.batch_norm)
        else:
            features = swin(g, config.backbone, x, sizes, scale=scale)
    with g.scope("pixel_decoder"):
        pixels = pixel_decoder(g, config.pixel_decoder, features, sizes, lowering)
    with g.scope("transformer_decoder"):
        decoder = TransformerDecoder(g, config.transformer_decoder, pixels, sizes, lowering)
        class_logits, mask_logits = decoder(batch)
    g.op("Identity", class_logits, name=CLASS_LOGITS)
    g.op("Identity", mask_logits, name=MASK_LOGITS)
    g.prune([CLASS_LOGITS, MASK_LOGITS])
    return _model(g, config, profile, lowering), g.initializers


def attention_logits(layer: int) -> Value:
    """Name of a decoder layer's mask logits [N, Q, S]: negative where it must not look."""
    return f"transformer_decoder.layers.{layer}.{ATTENTION_LOGITS}"


def _input_size(g: Graph, profile: InputProfile) -> tuple[Dim, Dim, Dim]:
    """Batch, height and width of `image`: numbers where they are fixed."""
    axes = (profile.batch, profile.height, profile.width)
    if all(axis.is_fixed for axis in axes):
        return tuple(axis.min for axis in axes)  # type: ignore[return-value]
    shape = g.op("Shape", IMAGE)
    sizes: list[Dim] = []
    for i, axis in enumerate(axes):
        ends = (g.constant([j], np.int64) for j in (i, i + 1, 0))
        sizes.append(axis.min if axis.is_fixed else g.op("Slice", shape, *ends))
    return sizes[0], sizes[1], sizes[2]


def _network_input(
    g: Graph, preprocess: Preprocess, height: Dim, width: Dim, *, is_scaled: bool
) -> tuple[Value, tuple[Dim, Dim]]:
    """Normalises, blanks what lies beyond `image_size`, pads to multiples of 32.

    Without ``is_scaled`` the division by the standard deviation is left to the backbone.
    """
    x = g.op("Transpose", as_float(g, IMAGE), perm=[0, 3, 1, 2])
    x = g.op("Sub", x, g.constant(np.reshape(preprocess.mean, (3, 1, 1))))
    if is_scaled:
        x = g.op("Div", x, g.constant(np.reshape(preprocess.std, (3, 1, 1))))
    inside = []
    for axis, size in enumerate((height, width)):
        limit = g.op("Gather", IMAGE_SIZE, g.constant([axis], np.int64), axis=1)
        is_inside = as_float(g, g.op("Less", indices(g, size), limit))  # [N, size]
        shape = g.ints(0, 1, -1, 1) if axis == 0 else g.ints(0, 1, 1, -1)
        inside.append(g.op("Reshape", is_inside, shape))
    x = g.op("Mul", x, g.op("Mul", *inside))
    padded = (_rounded_up(g, height), _rounded_up(g, width))
    if padded != (height, width):
        down, right = (
            g.arithmetic("Sub", p, d) for p, d in zip(padded, (height, width), strict=True)
        )
        x = g.op("Pad", x, g.ints(0, 0, 0, 0, 0, 0, down, right))
    return x, padded


def _rounded_up(g: Graph, size: Dim) -> Dim:
    up = g.arithmetic("Add", size, SIZE_DIVISOR - 1)
    return g.arithmetic("Mul", g.arithmetic("Div", up, SIZE_DIVISOR), SIZE_DIVISOR)


def _divided(g: Graph, size: Dim, by: int) -> Dim:
    return g.arithmetic("Div", size, by)


def _model(
    g: Graph, config: ModelConfig, profile: InputProfile, lowering: Lowering
) -> onnx.ModelProto:
    """Puts nodes, inputs, outputs and functions together; weights are added on saving."""
    batch = profile.batch.min if profile.batch.is_fixed else "N"
    height = profile.height.min if profile.height.is_fixed else "H"
    width = profile.width.min if profile.width.is_fixed else "W"
    quarters = [
        _rounded(size) // 4 if isinstance(size, int) else f"{size}_quarter"
        for size in (height, width)
    ]
    rows = batch if isinstance(batch, int) else 1
    g.initializers[IMAGE_SIZE] = np.full((rows, 2), WHOLE_IMAGE, np.int64)
    queries = config.transformer_decoder.queries
    info, types = helper.make_tensor_value_info, onnx.TensorProto
    graph = helper.make_graph(
        g.nodes,
        "mask2former",
        [
            info(IMAGE, types.UINT8, [batch, height, width, 3]),
            info(IMAGE_SIZE, types.INT64, [batch if isinstance(batch, int) else "sizes", 2]),
        ],
        [
            info(CLASS_LOGITS, types.FLOAT, [batch, queries, config.classes + 1]),
            info(MASK_LOGITS, types.FLOAT, [batch, queries, *quarters]),
        ],
    )
    opsets = [helper.make_opsetid("", OPSET)]
    if lowering.functions:
        opsets += [helper.make_opsetid(OPS[0].domain, 1)]
    return helper.make_model(
        graph,
        opset_imports=opsets,
        ir_version=IR_VERSION,
        producer_name="m2f",
        functions=list(lowering.functions.values()),
    )


def _rounded(size: int) -> int:
    return -(-size // SIZE_DIVISOR) * SIZE_DIVISOR
