"""The transformer decoder, lowered; the mathematics is in its namesake of `m2f.models`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from m2f.config import LEVELS, TransformerDecoderConfig
from m2f.export.graph import Array, Dim, Graph, Value
from m2f.export.layers import layer_norm, linear, sine_position
from m2f.export.mask_head import MaskHead
from m2f.export.ops import Lowering, merge_heads, split_heads
from m2f.export.pixel_decoder import PixelFeatures, Size

ATTENTION_LOGITS = "attention_logits"
"""What each decoder layer's mask logits [N, Q, S] are called, within the layer's scope."""


class TransformerDecoder:
    """Queries refined by masked attention, and the heads that read them.

    Args:
        g: The graph, in the decoder's scope.
        config: Widths, layers, queries.
        features: A pixel decoder's output.
        sizes: Height and width of res2..res5.
        lowering: How the network is written down.
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
        self.masks = MaskHead(g, config.queries, features, sizes[0], lowering)
        self.sources: list[Value] = []
        self.keys: list[Value] = []
        for level, (tokens, size) in enumerate(zip(features.tokens, sizes[:0:-1], strict=True)):
            embed = g.stored(f"level_embed.{level}", g.array("level_embed.weight")[level])
            source = g.op("Add", tokens, embed)
            position = sine_position(g, config.channels, *size)
            self.sources.append(source)
            self.keys.append(g.op("Add", source, position))

    def __call__(self, batch: Dim) -> tuple[Value, Value]:
        """Class logits [N, Q, K + 1] and mask logits [N, Q, H/4, W/4]."""
        g, config = self.g, self.config
        features = g.weight("query_feat.weight")
        x = g.op("Expand", features, g.ints(batch, config.queries, config.channels))
        seen = self._keys_and_values()
        for i in range(config.layers):
            q = None
            if i == 0 and self.lowering.algebra.first_layer:
                embedding, q = self.masks.constant(), self._first_query(batch)
            else:
                embedding = self.masks.embedding(self._norm(x, i), i)
            with g.scope(f"layers.{i}"):
                mask = self.masks.at_scale(embedding, i % LEVELS, name=ATTENTION_LOGITS)
            x = self._layer(i, x, q, seen[i], mask)
        normed = self._norm(x, config.layers)
        # The classes of earlier layers are for training only; this is the module's last call.
        classes = linear(g, "class_embed", normed, call=config.layers)
        return classes, self.masks.at_quarter(self.masks.embedding(normed, config.layers))

    def _norm(self, x: Value, call: int) -> Value:
        return layer_norm(self.g, "norm", x, call=call)

    def _layer(
        self, i: int, x: Value, q: Value | None, seen: tuple[Value, Value], mask: Value
    ) -> Value:
        """Masked cross-attention, self-attention, feed-forward network on x [N, Q, C]."""
        g, c, heads = self.g, self.config.channels, self.config.heads
        place = g.weight("query_embed.weight")
        with g.scope(f"layers.{i}"):
            with g.scope("cross_attn"):
                q = self._projected("q", g.op("Add", x, place)) if q is None else q
                inputs = (q, *seen, mask)
                y = self.lowering.masked_attention(g, inputs, heads=heads, channels=c)
                y = linear(g, "out_proj", y)
            x = layer_norm(g, "cross_attn_norm", g.op("Add", x, y))
            with g.scope("self_attn"):
                query = g.op("Add", x, place)
                parts = zip("qkv", (query, query, x), strict=True)
                y = _attention(
                    g, *(self._projected(*part) for part in parts), heads=heads, channels=c
                )
                y = linear(g, "out_proj", y)
            x = layer_norm(g, "self_attn_norm", g.op("Add", x, y))
            y = linear(g, "linear2", g.op("Relu", linear(g, "linear1", x)))
            return layer_norm(g, "ffn_norm", g.op("Add", x, y))

    def _keys_and_values(self) -> list[tuple[Value, Value]]:
        """Keys and values [N, S, C] of every layer's cross-attention."""
        seen: dict[int, tuple[Value, Value]] = {}
        for level in range(LEVELS):
            layers = list(range(level, self.config.layers, LEVELS))
            groups = [layers] if self.lowering.algebra.joint_kv else [[i] for i in layers]
            for group in filter(None, groups):
                keys = self._joint("k", group, self.keys[level])
                values = self._joint("v", group, self.sources[level])
                seen |= dict(zip(group, zip(keys, values, strict=True), strict=True))
        return [seen[i] for i in range(self.config.layers)]

    def _joint(self, part: str, layers: Sequence[int], x: Value) -> list[Value]:
        """One projection of several layers' cross-attentions, in one product."""
        g = self.g
        if len(layers) == 1:
            with g.scope(f"layers.{layers[0]}.cross_attn"):
                return [self._projected(part, x)]
        parts = []
        for i in layers:
            with g.scope(f"layers.{i}.cross_attn"):
                parts.append(self._projection(part))
        with g.scope(f"scales.{layers[0]}"):
            weight = np.concatenate([weight for weight, _ in parts]).T
            bias = np.concatenate([bias for _, bias in parts])
            y = g.op("MatMul", x, g.stored(f"{part}_proj.weight", weight))
            y = g.op("Add", y, g.stored(f"{part}_proj.bias", bias))
            widths = g.ints(*[self.config.channels] * len(layers))
            return g.ops("Split", y, widths, outputs=len(layers), axis=-1)

    def _first_query(self, batch: Dim) -> Value:
        """The first layer's queries, projected: they do not depend on the image."""
        g = self.g
        x = g.array("query_feat.weight") + g.array("query_embed.weight").astype(np.float64)
        with g.scope("layers.0.cross_attn"):
            weight, bias = self._projection("q")
            q = g.stored("first_query", (x @ weight.T + bias).astype(np.float32)[None])
            if batch == 1:
                return q
            return g.op("Expand", q, g.ints(batch, self.config.queries, self.config.channels))

    def _projection(self, part: str) -> tuple[Array, Array]:
        """Weight [C, C] and bias [C] of one part of a fused projection."""
        i = "qkv".index(part)
        weight = np.split(self.g.array("in_proj_weight"), 3)[i]
        return weight, np.split(self.g.array("in_proj_bias"), 3)[i]

    def _projected(self, part: str, x: Value) -> Value:
        """Applies one part of a fused projection to [N, S, C]."""
        g = self.g
        weight, bias = self._projection(part)
        y = g.op("MatMul", x, g.stored(f"{part}_proj.weight", weight.T))
        return g.op("Add", y, g.stored(f"{part}_proj.bias", bias))


def _attention(g: Graph, q: Value, k: Value, v: Value, *, heads: int, channels: int) -> Value:
    """Plain multi-head attention on [N, Q, C]."""
    q, k, v = (split_heads(g, x, heads, channels) for x in (q, k, v))
    q = g.op("Mul", q, g.constant((channels // heads) ** -0.5))
    scores = g.op("MatMul", q, g.op("Transpose", k, perm=[0, 1, 3, 2]))
    return merge_heads(g, g.op("MatMul", g.op("Softmax", scores, axis=-1), v), channels)
