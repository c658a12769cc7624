"""What a query says its mask is, at any scale: embeddings times features."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from m2f.config import LEVELS
from m2f.export import algebra
from m2f.export.graph import Array, Graph, Value
from m2f.export.layers import LAYER_NORM_EPSILON, linear, resize
from m2f.export.ops import Lowering
from m2f.export.pixel_decoder import PixelFeatures, Size

LAYERS = 3
"""Linear layers of the mask embedding."""


class Embedding(NamedTuple):
    """Query embeddings to multiply features with.

    Attributes:
        rows: [N, Q, E], or [1, Q, E] where it is the same for every image.
        shift: [N, Q, 1] to add, or None.
    """

    rows: Value
    shift: Value | None


class MaskHead:
    """Draws masks.

    Args:
        g: The graph, in the transformer decoder's scope.
        queries: Q.
        features: A pixel decoder's output.
        quarter: Height and width of the 1/4 map.
        lowering: How the network is written down.
    """

    def __init__(
        self, g: Graph, queries: int, features: PixelFeatures, quarter: Size, lowering: Lowering
    ) -> None:
        self.g, self.queries, self.quarter = g, queries, quarter
        self.fold = features.fold
        self.flat = self._flattened(features.mask_map)
        self.small = None
        if lowering.algebra.small_masks:
            maps = (resize(g, features.mask_map, _shrinking(i)) for i in range(LEVELS))
            self.small = [self._flattened(x) for x in maps]

    def embedding(self, normed: Value, call: int) -> Embedding:
        """Embeds normalised queries [N, Q, C]; ``call`` counts the calls in PyTorch."""
        g, y = self.g, normed
        for j in range(LAYERS - 1):
            y = g.op("Relu", linear(g, f"mask_embed.{j}", y, call=call))
        last = f"mask_embed.{LAYERS - 1}"
        if self.fold is None:
            return Embedding(linear(g, last, y, call=call), None)
        weight, bias = self._last()
        y = g.op("MatMul", y, g.stored(f"{last}.folded.weight", weight.T))
        y = g.op("Add", y, g.stored(f"{last}.folded.bias", bias))
        rows, shift = g.ops("Split", y, g.ints(len(bias) - 1, 1), outputs=2, axis=-1)
        return Embedding(rows, shift)

    def constant(self) -> Embedding:
        """The embedding of the learnt queries, before any layer, computed now."""
        g = self.g
        y = algebra.layer_norm(
            g.array("query_feat.weight"),
            g.array("norm.weight"),
            g.array("norm.bias"),
            LAYER_NORM_EPSILON,
        )
        for j in range(LAYERS - 1):
            weight, bias = g.array(f"mask_embed.{j}.weight"), g.array(f"mask_embed.{j}.bias")
            y = np.maximum(y @ weight.T + bias, 0)
        weight, bias = self._last()
        y = (y @ weight.T + bias).astype(np.float32)[None]
        if self.fold is None:
            return Embedding(g.stored("first_embedding", y), None)
        shift = g.stored("first_shift", y[..., -1:])
        return Embedding(g.stored("first_embedding", y[..., :-1]), shift)

    def at_scale(self, embedding: Embedding, level: int, *, name: str) -> Value:
        """Masks at the size of an attention scale (0 is 1/32), [N, Q, S]."""
        g = self.g
        if self.small is not None:
            return self._product(embedding, self.small[level], name=name)
        small = resize(g, self.at_quarter(embedding), _shrinking(level))
        return g.op("Reshape", small, g.ints(0, self.queries, -1), name=name)

    def at_quarter(self, embedding: Embedding) -> Value:
        """Masks at their full size, [N, Q, H/4, W/4]."""
        flat = self._product(embedding, self.flat)
        return self.g.op("Reshape", flat, self.g.ints(0, self.queries, *self.quarter))

    def _last(self) -> tuple[Array, Array]:
        """Weight and bias of the embedding's last layer, with what is folded into it."""
        last = f"mask_embed.{LAYERS - 1}"
        weight, bias = self.g.array(f"{last}.weight"), self.g.array(f"{last}.bias")
        if self.fold is None:
            return weight, bias
        return algebra.linear_from_linear_and_conv(weight, bias, *self.fold)

    def _product(
        self, embedding: Embedding, features: Value, *, name: str | None = None
    ) -> Value:
        rows, shift = embedding
        if shift is None:
            return self.g.op("MatMul", rows, features, name=name)
        return self.g.op("Add", self.g.op("MatMul", rows, features), shift, name=name)

    def _flattened(self, x: Value) -> Value:
        """[N, E, H, W] to [N, E, H * W]."""
        return self.g.op("Reshape", x, self.g.ints(0, 0, -1))


def _shrinking(level: int) -> float:
    """From 1/4 of the image to an attention scale."""
    return float(0.125 * 2**level)
