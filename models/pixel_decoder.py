"""Backbone features in, three attention scales and one fine map of mask features out.

Section 3.2.1 of the paper: Mask2Former works with any pixel decoder. Two are here behind
one interface: multi-scale deformable attention (what all published models use) and a plain
feature pyramid.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from m2f.config import LEVELS, PixelDecoderConfig
from m2f.models.msdeform import MSDeformAttn, Sizes
from m2f.models.position import sine_position

GROUPS = 32
"""Groups of every group normalisation in the pixel decoder."""


class PixelFeatures(NamedTuple):
    """What a pixel decoder hands to the transformer decoder.

    Attributes:
        scales: [N, C, H/32, W/32], [N, C, H/16, W/16], [N, C, H/8, W/8]: coarse first, the
            order in which the decoder layers use them.
        mask_features: [N, C, H/4, W/4].
    """

    scales: tuple[Tensor, Tensor, Tensor]
    mask_features: Tensor


class ConvGroupNorm(nn.Conv2d):
    """A convolution without bias, followed by group normalisation."""

    def __init__(self, inputs: int, outputs: int, size: int) -> None:
        super().__init__(inputs, outputs, size, padding=size // 2, bias=False)
        self.norm = nn.GroupNorm(GROUPS, outputs)

    def forward(self, input: Tensor) -> Tensor:
        """Maps [N, C, H, W] to [N, outputs, H, W]."""
        out: Tensor = self.norm(super().forward(input))
        return out


class EncoderLayer(nn.Module):
    """Deformable self-attention over all scales, then a feed-forward network; post-norm."""

    def __init__(self, config: PixelDecoderConfig) -> None:
        super().__init__()
        self.attn = MSDeformAttn(config.channels, config.heads, config.points)
        self.norm1 = nn.LayerNorm(config.channels)
        self.linear1 = nn.Linear(config.channels, config.ffn)
        self.linear2 = nn.Linear(config.ffn, config.channels)
        self.norm2 = nn.LayerNorm(config.channels)

    def forward(self, tokens: Tensor, position: Tensor, sizes: Sizes) -> Tensor:
        """Maps tokens [N, S, C] to the same; ``position`` is [S, C]."""
        tokens = self.norm1(tokens + self.attn(tokens + position, tokens, sizes))
        hidden = F.relu(self.linear1(tokens))
        out: Tensor = self.norm2(tokens + self.linear2(hidden))
        return out


class MSDeformPixelDecoder(nn.Module):
    """Six deformable encoder layers on 1/32, 1/16, 1/8, then one pyramid step to 1/4.

    Args:
        config: Widths and layers.
        inputs: Channels of res2..res5.
    """

    def __init__(self, config: PixelDecoderConfig, inputs: Sequence[int]) -> None:
        super().__init__()
        c = config.channels
        coarse_first = list(reversed(inputs[1:]))
        self.input_proj = nn.ModuleList(
            nn.Sequential(nn.Conv2d(n, c, 1), nn.GroupNorm(GROUPS, c)) for n in coarse_first
        )
        self.level_embed = nn.Parameter(torch.randn(LEVELS, c))
        self.layers = nn.ModuleList(EncoderLayer(config) for _ in range(config.layers))
        self.lateral = ConvGroupNorm(inputs[0], c, 1)
        self.output = ConvGroupNorm(c, c, 3)
        self.mask_features = nn.Conv2d(c, config.mask_channels, 1)

    def forward(self, features: Sequence[Tensor]) -> PixelFeatures:
        """Refines res2..res5 of a backbone."""
        res2, *rest = features
        maps = [proj(x) for proj, x in zip(self.input_proj, reversed(rest), strict=True)]
        sizes = [(x.shape[2], x.shape[3]) for x in maps]
        tokens = torch.cat([x.flatten(2).transpose(1, 2) for x in maps], 1)
        position = self.position(sizes)
        for layer in self.layers:
            tokens = layer(tokens, position, sizes)

        parts = torch.split(tokens, [h * w for h, w in sizes], dim=1)
        coarse, middle, fine = (
            torch.unflatten(part.transpose(1, 2), 2, size)
            for part, size in zip(parts, sizes, strict=True)
        )
        up = F.interpolate(fine, size=res2.shape[2:], mode="bilinear", align_corners=False)
        quarter = F.relu(self.output(self.lateral(res2) + up))
        return PixelFeatures((coarse, middle, fine), self.mask_features(quarter))

    def position(self, sizes: Sizes) -> Tensor:
        """Where each token is, within its level and which level it is, [S, C]."""
        c = self.level_embed.shape[1]
        return torch.cat(
            [
                sine_position(c, h, w, like=self.level_embed).flatten(1).T + embed
                for (h, w), embed in zip(sizes, self.level_embed, strict=True)
            ]
        )


class FPNPixelDecoder(nn.Module):
    """A feature pyramid (Lin et al., CVPR 2017) with group normalisation.

    Args:
        config: Widths; the attention's settings are not used.
        inputs: Channels of res2..res5.
    """

    def __init__(self, config: PixelDecoderConfig, inputs: Sequence[int]) -> None:
        super().__init__()
        c = config.channels
        self.lateral = nn.ModuleList(ConvGroupNorm(n, c, 1) for n in inputs[:3])
        self.output = nn.ModuleList(ConvGroupNorm(n, c, 3) for n in (c, c, c, inputs[3]))
        self.mask_features = nn.Conv2d(c, config.mask_channels, 3, padding=1)

    def forward(self, features: Sequence[Tensor]) -> PixelFeatures:
        """Merges res2..res5 of a backbone from coarse to fine."""
        y = F.relu(self.output[3](features[3]))
        pyramid = [y]
        for i in (2, 1, 0):
            side = self.lateral[i](features[i])
            y = F.relu(self.output[i](side + F.interpolate(y, size=side.shape[2:])))
            pyramid.append(y)
        coarse, middle, fine, quarter = pyramid
        return PixelFeatures((coarse, middle, fine), self.mask_features(quarter))


def build_pixel_decoder(config: PixelDecoderConfig, inputs: Sequence[int]) -> nn.Module:
    """Builds the kind that the config names, for a backbone with these channels."""
    kinds = {"msdeform": MSDeformPixelDecoder, "fpn": FPNPixelDecoder}
    return kinds[config.kind](config, inputs)
