"""Swin transformer (Liu et al., ICCV 2021) with the choices of Mask2Former's backbone.

Two of them matter for parity: feature maps are zero-padded to whole windows after the
first norm, and padded tokens are not masked as keys; only tokens that a cyclic shift
brought together from different sides of the image are kept apart.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from m2f.config import SwinConfig

PATCH = 4
"""Side of an embedded patch, pixels."""


def relative_position_index(window: int) -> Tensor:
    """Row of the bias table for each pair of tokens of a window, [w * w, w * w], int64.

    Entry (q, k) is (y_q - y_k + w - 1) * (2 w - 1) + (x_q - x_k + w - 1).
    """
    axis = torch.arange(window, device="cpu")
    y = axis.repeat_interleave(window)
    x = axis.repeat(window)
    dy = y[:, None] - y[None, :] + window - 1
    dx = x[:, None] - x[None, :] + window - 1
    return dy * (2 * window - 1) + dx


def windows_from_map(x: Tensor, window: int) -> Tensor:
    """Cuts [N, H, W, C] into windows [N * H/w * W/w, w * w, C]."""
    n, h, w, c = x.shape
    x = x.view(n, h // window, window, w // window, window, c)
    return x.permute(0, 1, 3, 2, 4, 5).reshape(-1, window * window, c)


def map_from_windows(x: Tensor, window: int, height: int, width: int) -> Tensor:
    """Puts windows [N * H/w * W/w, w * w, C] back together as [N, H, W, C]."""
    c = x.shape[-1]
    x = x.view(-1, height // window, width // window, window, window, c)
    return x.permute(0, 1, 3, 2, 4, 5).reshape(-1, height, width, c)


def shift_regions(height: int, width: int, window: int) -> Tensor:
    """Numbers the nine regions that a cyclic shift by w // 2 must keep apart, [H, W]."""
    shift = window // 2

    def bands(size: int) -> Tensor:
        i = torch.arange(size)
        return (i >= size - window).long() + (i >= size - shift).long()

    return bands(height)[:, None] * 3 + bands(width)[None, :]


def shift_mask(height: int, width: int, window: int) -> Tensor:
    """Additive attention mask of shifted windows, [windows, w * w, w * w]: 0 or -100."""
    regions = shift_regions(height, width, window)[None, :, :, None]
    flat = windows_from_map(regions, window)[..., 0]
    apart = flat[:, :, None] != flat[:, None, :]
    return apart * -100.0


class WindowAttention(nn.Module):
    """Self-attention within a window, with a learnt bias per head and relative position."""

    def __init__(self, channels: int, heads: int, window: int) -> None:
        super().__init__()
        self.heads = heads
        self.window = window
        self.relative_position_bias_table = nn.Parameter(
            torch.zeros((2 * window - 1) ** 2, heads)
        )
        self.qkv = nn.Linear(channels, 3 * channels)
        self.proj = nn.Linear(channels, channels)
        nn.init.trunc_normal_(self.relative_position_bias_table, std=0.02)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """Attends within each window.

        Args:
            x: [B, T, C], B windows (of all images) with T = w * w tokens.
            mask: [windows of one image, T, T], added to the scores; None for no shift.
        """
        b, t, c = x.shape
        q, k, v = self.qkv(x).view(b, t, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4)
        scores = (q * (c // self.heads) ** -0.5) @ k.transpose(-2, -1)
        scores = scores + self.bias()
        if mask is not None:
            count = mask.shape[0]
            scores = scores.view(b // count, count, self.heads, t, t) + mask[:, None]
            scores = scores.view(b, self.heads, t, t)
        out: Tensor = self.proj((scores.softmax(-1) @ v).transpose(1, 2).reshape(b, t, c))
        return out

    def bias(self) -> Tensor:
        """Relative position bias of each head, [M, T, T]."""
        index = relative_position_index(self.window).to(self.qkv.weight.device)
        return self.relative_position_bias_table[index].permute(2, 0, 1)


class MLP(nn.Module):
    """Two linear layers around an exact (erf) GELU."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(channels, 4 * channels)
        self.fc2 = nn.Linear(4 * channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Maps [..., C] to [..., C]."""
        out: Tensor = self.fc2(F.gelu(self.fc1(x)))
        return out


class SwinBlock(nn.Module):
    """Window attention and an MLP, each after a norm; odd blocks shift the windows."""

    def __init__(self, channels: int, heads: int, window: int, *, shifted: bool) -> None:
        super().__init__()
        self.window = window
        self.shift = window // 2 if shifted else 0
        self.norm1 = nn.LayerNorm(channels)
        self.attn = WindowAttention(channels, heads, window)
        self.norm2 = nn.LayerNorm(channels)
        self.mlp = MLP(channels)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Maps [N, H, W, C] to the same; ``mask`` is that of the padded, shifted map."""
        _, h, w, _ = x.shape
        y = F.pad(self.norm1(x), (0, 0, 0, -w % self.window, 0, -h % self.window))
        padded_h, padded_w = y.shape[1:3]
        if self.shift:
            y = y.roll((-self.shift, -self.shift), (1, 2))
        y = self.attn(windows_from_map(y, self.window), mask if self.shift else None)
        y = map_from_windows(y, self.window, padded_h, padded_w)
        if self.shift:
            y = y.roll((self.shift, self.shift), (1, 2))
        x = x + y[:, :h, :w]
        out: Tensor = x + self.mlp(self.norm2(x))
        return out


class PatchMerging(nn.Module):
    """Halves the resolution: 2x2 neighbours are stacked, normalised, projected."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4 * channels)
        self.reduction = nn.Linear(4 * channels, 2 * channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Maps [N, H, W, C] to [N, ceil(H / 2), ceil(W / 2), 2 C]."""
        _, h, w, _ = x.shape
        x = F.pad(x, (0, 0, 0, w % 2, 0, h % 2))
        neighbours = [x[:, dy::2, dx::2] for dx in (0, 1) for dy in (0, 1)]
        out: Tensor = self.reduction(self.norm(torch.cat(neighbours, -1)))
        return out


class SwinStage(nn.Module):
    """Blocks at one resolution, and the step down to the next (except after the last)."""

    def __init__(self, config: SwinConfig, stage: int) -> None:
        super().__init__()
        channels = config.channels[stage]
        self.window = config.window
        self.blocks = nn.ModuleList(
            SwinBlock(channels, config.heads[stage], config.window, shifted=b % 2 == 1)
            for b in range(config.depths[stage])
        )
        if stage < 3:
            self.downsample = PatchMerging(channels)

    def forward(self, x: Tensor) -> Tensor:
        """Runs the blocks on [N, H, W, C]; stepping down is left to the caller."""
        h, w = (-(-size // self.window) * self.window for size in x.shape[1:3])
        mask = shift_mask(h, w, self.window).to(x)
        for block in self.blocks:
            x = block(x, mask)
        return x


class PatchEmbed(nn.Module):
    """4x4 pixels become one token."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, channels, PATCH, PATCH)
        self.norm = nn.LayerNorm(channels)

    def forward(self, x: Tensor) -> Tensor:
        """Maps [N, 3, H, W] to [N, ceil(H / 4), ceil(W / 4), C]."""
        h, w = x.shape[2:]
        x = self.proj(F.pad(x, (0, -w % PATCH, 0, -h % PATCH)))
        out: Tensor = self.norm(x.permute(0, 2, 3, 1))
        return out


class Swin(nn.Module):
    """Four stages of shifted-window attention.

    Args:
        config: Depths, widths, window.
    """

    def __init__(self, config: SwinConfig) -> None:
        super().__init__()
        self.patch_embed = PatchEmbed(config.embed_dim)
        self.layers = nn.ModuleList(SwinStage(config, stage) for stage in range(4))
        for stage, channels in enumerate(config.channels):
            self.add_module(f"norm{stage}", nn.LayerNorm(channels))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Returns res2..res5 at strides 4, 8, 16, 32 of normalised images [N, 3, H, W]."""
        x = self.patch_embed(x)
        features = []
        for stage, layer in enumerate(self.layers):
            x = layer(x)
            features.append(self.get_submodule(f"norm{stage}")(x).permute(0, 3, 1, 2))
            if stage < 3:
                x = layer.get_submodule("downsample")(x)
        res2, res3, res4, res5 = features
        return res2, res3, res4, res5
