"""Pixel decoders and the transformer decoder, lowered; see their namesakes in m2f.models."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from m2f.config import LEVELS, PixelDecoderConfig, TransformerDecoderConfig
from m2f.export.graph import Dim, Graph, Value
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
from m2f.export.ops import Lowering, merge_heads, split_heads

Size = tuple[Dim, Dim]

ATTENTION_LOGITS = "attention_logits"
"""What each decoder layer's mask logits [N, Q, S] are called, within the layer's scope."""


@dataclass(frozen=True)
class PixelFeatures:
    """What a pixel decoder hands on.

    Attributes:
        tokens: Coarse to fine, [N, S, C] each.
        mask_features: [N, C, H/4 * W/4].
    """

    tokens: list[Value]
    mask_features: Value


def pixel_decoder(
    g: Graph,
    config: PixelDecoderConfig,
    features: Sequence[Value],
    sizes: Sequence[Size],
    lowering: Lowering,
) -> PixelFeatures:
    """Refines res2..res5 (``sizes``: their heights and widths)."""
    if config.kind == "fpn":
        return _fpn(g, config, features, sizes)
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
    y = g.op("Relu", y)
    return PixelFeatures(tokens, _mask_features(g, config, y, size=1))


def _fpn(
    g: Graph, config: PixelDecoderConfig, features: Sequence[Value], sizes: Sequence[Size]
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
    return PixelFeatures(tokens, _mask_features(g, config, y, size=3))


def _conv_norm(g: Graph, name: str, x: Value, channels: int, at: Size, *, size: int) -> Value:
    """A convolution without bias and its group norm; ``at``: height and width of the map."""
    y = conv(g, name, x, size=size, bias=False)
    return group_norm(g, f"{name}.norm", y, channels, at)


def _mask_features(g: Graph, config: PixelDecoderConfig, x: Value, *, size: int) -> Value:
    y = conv(g, "mask_features", x, size=size)
    return g.op("Reshape", y, g.ints(0, config.mask_channels, -1))


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


class TransformerDecoder:
    """Queries refined by masked attention, and the heads that read them.

    Args:
        g: The graph, in the decoder's scope.
        config: Widths, layers, queries.
        features: A pixel decoder's output.
        sizes: Height and width of res2..res5.
        lowering: How the custom ops enter.
    """

    def __init__(
        self,
        g: Graph,
        config: TransformerDecoderConfig,
        features: PixelFeatures,
        sizes: Sequence[Size],
        lowering: Lowering,
    ) -> None:
        self.g, self.config, self.lowering = g, config, lowering
        self.mask_features = features.mask_features
        self.quarter, self.scales = sizes[0], sizes[:0:-1]
        self.sources, self.positions = [], []
        for level, tokens in enumerate(features.tokens):
            embed = g.stored(f"level_embed.{level}", g.array("level_embed.weight")[level])
            self.sources.append(g.op("Add", tokens, embed))
            self.positions.append(sine_position(g, config.channels, *self.scales[level]))

    def __call__(self, batch: Dim) -> tuple[Value, Value]:
        """Class logits [N, Q, K + 1] and mask logits [N, Q, H/4, W/4]."""
        g, config = self.g, self.config
        features = g.weight("query_feat.weight")
        x = g.op("Expand", features, g.ints(batch, config.queries, config.channels))
        place = g.weight("query_embed.weight")
        for i in range(config.layers):
            level = i % LEVELS
            small = resize(g, self._masks(self._norm(x)), 0.125 * 2**level)
            with g.scope(f"layers.{i}"):
                mask = g.op(
                    "Reshape", small, g.ints(0, config.queries, -1), name=ATTENTION_LOGITS
                )
                x = self._layer(x, place, level, mask)
        normed = self._norm(x)
        # The classes of earlier layers are for training only; this is the module's last call.
        classes = linear(g, "class_embed", normed, call=config.layers)
        return classes, self._masks(normed)

    def _norm(self, x: Value) -> Value:
        return layer_norm(self.g, "norm", x)

    def _masks(self, normed: Value) -> Value:
        """Masks that normalised queries [N, Q, C] draw, [N, Q, H/4, W/4]."""
        g, y = self.g, normed
        for j in range(3):
            y = linear(g, f"mask_embed.{j}", y)
            y = g.op("Relu", y) if j < 2 else y
        flat = g.op("MatMul", y, self.mask_features)
        return g.op("Reshape", flat, g.ints(0, self.config.queries, *self.quarter))

    def _layer(self, x: Value, place: Value, level: int, mask: Value) -> Value:
        """Masked cross-attention, self-attention, feed-forward network."""
        g, c, heads = self.g, self.config.channels, self.config.heads
        source = self.sources[level]
        key = g.op("Add", source, self.positions[level])
        with g.scope("cross_attn"):
            q, k, v = self._project(g.op("Add", x, place), key, source)
            inputs = (q, k, v, mask)
            y = self.lowering.masked_attention(g, inputs, heads=heads, channels=c)
            y = linear(g, "out_proj", y)
        x = layer_norm(g, "cross_attn_norm", g.op("Add", x, y))
        with g.scope("self_attn"):
            query = g.op("Add", x, place)
            y = _attention(g, *self._project(query, query, x), heads=heads, channels=c)
            y = linear(g, "out_proj", y)
        x = layer_norm(g, "self_attn_norm", g.op("Add", x, y))
        y = linear(g, "linear2", g.op("Relu", linear(g, "linear1", x)))
        return layer_norm(g, "ffn_norm", g.op("Add", x, y))

    def _project(self, query: Value, key: Value, value: Value) -> tuple[Value, Value, Value]:
        """Applies the three parts of a fused projection."""
        g, results = self.g, []
        weights = np.split(g.array("in_proj_weight"), 3)
        biases = np.split(g.array("in_proj_bias"), 3)
        for part, x, weight, bias in zip(
            "qkv", (query, key, value), weights, biases, strict=True
        ):
            y = g.op("MatMul", x, g.stored(f"{part}_proj.weight", weight.T))
            results.append(g.op("Add", y, g.stored(f"{part}_proj.bias", bias)))
        q, k, v = results
        return q, k, v


def _attention(g: Graph, q: Value, k: Value, v: Value, *, heads: int, channels: int) -> Value:
    """Plain multi-head attention on [N, Q, C]."""
    q, k, v = (split_heads(g, x, heads, channels) for x in (q, k, v))
    q = g.op("Mul", q, g.constant((channels // heads) ** -0.5))
    scores = g.op("MatMul", q, g.op("Transpose", k, perm=[0, 1, 3, 2]))
    return merge_heads(g, g.op("MatMul", g.op("Softmax", scores, axis=-1), v), channels)
