"""Learnable queries become segments: masked attention (section 3.2.1 of the paper).

Every layer looks at the image only where its query's current mask is, on one feature scale
in rotation (1/32, 1/16, 1/8, 1/32, ...); then the queries look at each other. Cross-
before self-attention, learnable query features, no dropout: the paper's changes to DETR.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from m2f.config import LEVELS, TransformerDecoderConfig
from m2f.models.pixel_decoder import PixelFeatures
from m2f.models.position import sine_position


class Heads(NamedTuple):
    """What the queries say at one point of the decoder.

    Attributes:
        class_logits: [N, Q, K + 1]; the last class is "no object".
        mask_logits: [N, Q, H/4, W/4], before the sigmoid.
    """

    class_logits: Tensor
    mask_logits: Tensor


class Attention(nn.Module):
    """Multi-head attention with one fused projection, named as `nn.MultiheadAttention`."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * channels, channels))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * channels))
        self.out_proj = nn.Linear(channels, channels)
        nn.init.xavier_uniform_(self.in_proj_weight)
        nn.init.xavier_uniform_(self.out_proj.weight)
        nn.init.zeros_(self.out_proj.bias)

    def forward(
        self, query: Tensor, key: Tensor, value: Tensor, *, masked: Tensor | None = None
    ) -> Tensor:
        """Attends.

        Args:
            query: [N, Q, C].
            key: [N, S, C].
            value: [N, S, C].
            masked: [N, Q, S], bool; True where a query must not look. No row may be all
                True. The heads share it.
        """
        weights, biases = self.in_proj_weight.chunk(3), self.in_proj_bias.chunk(3)
        q, k, v = (
            torch.unflatten(F.linear(x, w, b), 2, (self.heads, -1)).transpose(1, 2)
            for x, w, b in zip((query, key, value), weights, biases, strict=True)
        )  # each [N, M, Q or S, D]
        scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)
        if masked is not None:
            scores = scores.masked_fill(masked[:, None], -torch.inf)
        out: Tensor = self.out_proj((scores.softmax(-1) @ v).transpose(1, 2).flatten(2))
        return out


class DecoderLayer(nn.Module):
    """Masked cross-attention, self-attention, feed-forward network; post-norm."""

    def __init__(self, config: TransformerDecoderConfig) -> None:
        super().__init__()
        c = config.channels
        self.cross_attn = Attention(c, config.heads)
        self.cross_attn_norm = nn.LayerNorm(c)
        self.self_attn = Attention(c, config.heads)
        self.self_attn_norm = nn.LayerNorm(c)
        self.linear1 = nn.Linear(c, config.ffn)
        self.linear2 = nn.Linear(config.ffn, c)
        self.ffn_norm = nn.LayerNorm(c)

    def forward(
        self, x: Tensor, place: Tensor, source: Tensor, position: Tensor, masked: Tensor
    ) -> Tensor:
        """Updates the queries.

        Args:
            x: [N, Q, C], query features.
            place: [Q, C], query positions.
            source: [N, S, C], tokens of one scale.
            position: [S, C], where they are.
            masked: [N, Q, S], bool.
        """
        x = self.cross_attn_norm(
            x + self.cross_attn(x + place, source + position, source, masked=masked)
        )
        x = self.self_attn_norm(x + self.self_attn(x + place, x + place, x))
        hidden = F.relu(self.linear1(x))
        out: Tensor = self.ffn_norm(x + self.linear2(hidden))
        return out


class TransformerDecoder(nn.Module):
    """Queries, decoder layers, and the heads that read classes and masks from queries.

    Args:
        config: Widths, layers, queries.
        mask_channels: Channels of the mask features.
        classes: K, without "no object".
    """

    def __init__(
        self, config: TransformerDecoderConfig, *, mask_channels: int, classes: int
    ) -> None:
        super().__init__()
        c = config.channels
        self.query_feat = nn.Embedding(config.queries, c)
        self.query_embed = nn.Embedding(config.queries, c)
        self.level_embed = nn.Embedding(LEVELS, c)
        self.layers = nn.ModuleList(DecoderLayer(config) for _ in range(config.layers))
        self.norm = nn.LayerNorm(c)
        self.class_embed = nn.Linear(c, classes + 1)
        self.mask_embed = nn.ModuleList(
            nn.Linear(c, outputs) for outputs in (c, c, mask_channels)
        )

    def forward(
        self, features: PixelFeatures, *, forced_masks: Sequence[Tensor] | None = None
    ) -> tuple[list[Heads], list[Tensor]]:
        """Predicts classes and masks, before and after every layer.

        Args:
            features: A pixel decoder's output.
            forced_masks: One [N, Q, S] bool per layer, used instead of the layer's own
                mask: what another implementation decided, to compare past a decision that
                rounding tipped.

        Returns:
            Heads of the learnt queries and of each layer (the last is the answer), and what
            each layer's own attention mask was decided from, [N, Q, S].
        """
        sources, positions, sizes = self._flatten(features.scales)
        x = self.query_feat.weight.expand(len(sources[0]), -1, -1)
        heads, logits = [self.heads(x, features.mask_features)], []
        for i, layer in enumerate(self.layers):
            level = i % LEVELS
            logits.append(attention_logits(heads[-1].mask_logits, sizes[level]))
            masked = is_masked(logits[-1]) if forced_masks is None else forced_masks[i]
            masked = masked & ~masked.all(-1, keepdim=True)
            x = layer(x, self.query_embed.weight, sources[level], positions[level], masked)
            heads.append(self.heads(x, features.mask_features))
        return heads, logits

    def heads(self, x: Tensor, mask_features: Tensor) -> Heads:
        """Reads class and mask logits from query features [N, Q, C]."""
        x = self.norm(x)
        first, second, last = self.mask_embed
        embed = last(F.relu(second(F.relu(first(x)))))
        masks = torch.einsum("nqc,nchw->nqhw", embed, mask_features)
        return Heads(self.class_embed(x), masks)

    def _flatten(
        self, scales: Sequence[Tensor]
    ) -> tuple[list[Tensor], list[Tensor], list[tuple[int, int]]]:
        """Tokens [N, S, C] with their level's embedding, positions [S, C], and sizes."""
        sources, positions, sizes = [], [], []
        for x, embed in zip(scales, self.level_embed.weight, strict=True):
            _, c, h, w = x.shape
            sources.append(x.flatten(2).transpose(1, 2) + embed)
            positions.append(sine_position(c, h, w, like=x).flatten(1).T)
            sizes.append((h, w))
        return sources, positions, sizes


def attention_logits(mask_logits: Tensor, size: tuple[int, int]) -> Tensor:
    """Each query's mask at the size of the scale that its next layer looks at.

    Args:
        mask_logits: [N, Q, H/4, W/4].
        size: Height and width of the scale.

    Returns:
        [N, Q, S]; gradients do not pass.
    """
    small = F.interpolate(mask_logits, size=size, mode="bilinear", align_corners=False)
    return small.flatten(2).detach()


def is_masked(logits: Tensor) -> Tensor:
    """Where a query must not look: where its mask's probability is below one half.

    Args:
        logits: [N, Q, S].

    Returns:
        [N, Q, S], bool, before the rule that a fully masked row attends everywhere.
    """
    return logits.sigmoid() < 0.5
