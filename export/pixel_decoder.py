"""The pixel decoders, lowered; the mathematics is in `m2f.models.pixel_decoder`."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from m2f.config import LEVELS, PixelDecoderConfig
from m2f.export.graph import Array, Dim, Graph, Value
from m2f.export.layers import (
    conv,
    group_norm,
    layer_norm,
    linear,
    map_from_tokens,
    product,
    resize,
    sine_position,
    tokens_from_map,
)
from m2f.export.ops import Lowering

Size = tuple[Dim, Dim]


@dataclass(frozen=True)
class PixelFeatures:
    """What a pixel decoder hands on.

    Attributes:
        tokens: Coarse to fine, [N, S, C] each.
        mask_map: What masks are drawn from, [N, E, H/4, W/4]: the mask features, or the map
            before their convolution, if that is left to the mask embedding.
        fold: Kernel [E', E, 1, 1] and bias [E'] of the convolution that is; None if none.
    """

    tokens: list[Value]
    mask_map: Value
    fold: tuple[Array, Array] | None


def pixel_decoder(
    g: Graph,
    config: PixelDecoderConfig,
    features: Sequence[Value],
    sizes: Sequence[Size],
    lowering: Lowering,
) -> PixelFeatures:
    """Refines res2..res5 (``sizes``: their heights and widths)."""
    if config.kind == "fpn":
        return _fpn(g, config, features, sizes, lowering)
    c, res2, coarse_first = config.channels, features[0], sizes[:0:-1]
    maps = []
    for i, x in enumerate(reversed(features[1:])):
        y = conv(g, f"input_proj.{i}.0", x)
        maps.append(group_norm(g, f"input_proj.{i}.1", y, c, coarse_first[i]))
    x = g.op("Concat", *(tokens_from_map(g, m, c) for m in maps), axis=1)
    position = _level_positions(g, c, coarse_first)
    for i in range(config.layers):
        with g.scope(f"layers.{i}"):
            x = _encoder_layer(g, config, x, position, maps, coarse_first, lowering)

    areas = [product(g, *size) for size in coarse_first]
    tokens = g.ops("Split", x, g.ints(*areas), outputs=LEVELS, name="scales", axis=1)
    fine = map_from_tokens(g, tokens[2], c, sizes[1])
    side = _conv_norm(g, "lateral", res2, c, sizes[0], size=1)
    y = _conv_norm(g, "output", g.op("Add", side, resize(g, fine, 2.0)), c, sizes[0], size=3)
    return _features(g, tokens, g.op("Relu", y), lowering)


def _fpn(
    g: Graph,
    config: PixelDecoderConfig,
    features: Sequence[Value],
    sizes: Sequence[Size],
    lowering: Lowering,
) -> PixelFeatures:
    """A plain feature pyramid."""
    c = config.channels
    y = g.op("Relu", _conv_norm(g, "output.3", features[3], c, sizes[3], size=3))
    pyramid = [y]
    for i in (2, 1, 0):
        side = _conv_norm(g, f"lateral.{i}", features[i], c, sizes[i], size=1)
        y = g.op("Add", side, resize(g, y, 2.0, mode="nearest"))
        y = g.op("Relu", _conv_norm(g, f"output.{i}", y, c, sizes[i], size=3))
        pyramid.append(y)
    tokens = [tokens_from_map(g, x, c) for x in pyramid[:LEVELS]]
    return _features(g, tokens, y, lowering)


def _conv_norm(g: Graph, name: str, x: Value, channels: int, at: Size, *, size: int) -> Value:
    """A convolution without bias and its group norm; ``at``: height and width of the map."""
    y = conv(g, name, x, size=size, bias=False)
    return group_norm(g, f"{name}.norm", y, channels, at)


def _features(
    g: Graph, tokens: list[Value], quarter: Value, lowering: Lowering
) -> PixelFeatures:
    kernel, bias = g.array("mask_features.weight"), g.array("mask_features.bias")
    size = kernel.shape[2]
    if lowering.algebra.mask_features and size == 1:
        return PixelFeatures(tokens, quarter, (kernel, bias))
    return PixelFeatures(tokens, conv(g, "mask_features", quarter, size=size), None)


def _level_positions(g: Graph, channels: int, sizes: Sequence[Size]) -> Value:
    """Where each token is and which level it is on, [S, C]."""
    parts = []
    for level, size in enumerate(sizes):
        embed = g.stored(f"level_embed.{level}", g.array("level_embed")[level])
        parts.append(g.op("Add", sine_position(g, channels, *size), embed))
    return g.op("Concat", *parts, axis=0)


def _encoder_layer(
    g: Graph,
    config: PixelDecoderConfig,
    x: Value,
    position: Value,
    maps: Sequence[Value],
    sizes: Sequence[Size],
    lowering: Lowering,
) -> Value:
    """Deformable self-attention and a feed-forward network on tokens [N, S, C]."""
    with g.scope("attn"):
        # Offsets and logits come from one product; the op takes them as one tensor.
        parts = ("sampling_offsets", "attention_weights")
        weight = np.concatenate([g.array(f"{part}.weight") for part in parts]).T
        bias = np.concatenate([g.array(f"{part}.bias") for part in parts])
        query = g.op("Add", x, position)
        sampling = g.op("MatMul", query, g.stored("sampling.weight", weight))
        sampling = g.op("Add", sampling, g.stored("sampling.bias", bias))
        y = lowering.ms_deform_attn(
            g,
            linear(g, "value_proj", x),
            sampling,
            maps,
            sizes,
            heads=config.heads,
            points=config.points,
            channels=config.channels,
        )
        y = linear(g, "output_proj", y)
    x = layer_norm(g, "norm1", g.op("Add", x, y))
    y = linear(g, "linear2", g.op("Relu", linear(g, "linear1", x)))
    return layer_norm(g, "norm2", g.op("Add", x, y))
