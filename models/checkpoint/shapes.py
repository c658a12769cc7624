"""The names and shapes of a model's weights, from its configuration alone.

The same as the ``state_dict`` of `m2f.models.mask2former.Mask2Former`, without PyTorch.
"""

from __future__ import annotations

from collections.abc import Iterator

from m2f.config import (
    LEVELS,
    ModelConfig,
    PixelDecoderConfig,
    ResNetConfig,
    SwinConfig,
    TransformerDecoderConfig,
)

Shape = tuple[int, ...]
Named = Iterator[tuple[str, Shape]]

SWIN_MLP_RATIO = 4
SWIN_PATCH = 4
"""Pixels; Liu et al. 2021, section 3.1, as the ratio above."""


def weight_shapes(config: ModelConfig) -> dict[str, Shape]:
    """Names and shapes in the model's order."""
    backbone, decoder = config.backbone, config.transformer_decoder
    parts = (
        _resnet(backbone) if isinstance(backbone, ResNetConfig) else _swin(backbone),
        _pixel_decoder(config.pixel_decoder, backbone.channels),
        _transformer_decoder(decoder, config.pixel_decoder.mask_channels, config.classes),
    )
    return dict(item for part in parts for item in part)


def _linear(name: str, outputs: int, inputs: int) -> Named:
    yield f"{name}.weight", (outputs, inputs)
    yield f"{name}.bias", (outputs,)


def _conv(name: str, outputs: int, inputs: int, size: int) -> Named:
    yield f"{name}.weight", (outputs, inputs, size, size)
    yield f"{name}.bias", (outputs,)


def _norm(name: str, channels: int) -> Named:
    yield f"{name}.weight", (channels,)
    yield f"{name}.bias", (channels,)


def _conv_norm(name: str, outputs: int, inputs: int, size: int) -> Named:
    """A convolution without bias, then group normalisation."""
    yield f"{name}.weight", (outputs, inputs, size, size)
    yield from _norm(f"{name}.norm", outputs)


def _conv_batch_norm(name: str, outputs: int, inputs: int, size: int) -> Named:
    yield from _conv_norm(name, outputs, inputs, size)
    yield f"{name}.norm.running_mean", (outputs,)
    yield f"{name}.norm.running_var", (outputs,)


def _resnet(config: ResNetConfig) -> Named:
    yield from _conv_batch_norm("backbone.stem.conv1", config.width, 3, 7)
    inputs = config.width
    for stage, (blocks, outputs) in enumerate(zip(config.blocks, config.channels, strict=True)):
        width = config.width << stage
        for b in range(blocks):
            name = f"backbone.res{stage + 2}.{b}"
            if config.block == "bottleneck":
                yield from _conv_batch_norm(f"{name}.conv1", width, inputs, 1)
                yield from _conv_batch_norm(f"{name}.conv2", width, width, 3)
                yield from _conv_batch_norm(f"{name}.conv3", outputs, width, 1)
            else:
                yield from _conv_batch_norm(f"{name}.conv1", width, inputs, 3)
                yield from _conv_batch_norm(f"{name}.conv2", width, width, 3)
            if inputs != outputs:
                yield from _conv_batch_norm(f"{name}.shortcut", outputs, inputs, 1)
            inputs = outputs


def _swin(config: SwinConfig) -> Named:
    patch = SWIN_PATCH
    yield from _conv("backbone.patch_embed.proj", config.embed_dim, 3, patch)
    yield from _norm("backbone.patch_embed.norm", config.embed_dim)
    table = (2 * config.window - 1) ** 2
    for stage, (blocks, heads) in enumerate(zip(config.depths, config.heads, strict=True)):
        c = config.embed_dim << stage
        for b in range(blocks):
            name = f"backbone.layers.{stage}.blocks.{b}"
            yield from _norm(f"{name}.norm1", c)
            yield f"{name}.attn.relative_position_bias_table", (table, heads)
            yield from _linear(f"{name}.attn.qkv", 3 * c, c)
            yield from _linear(f"{name}.attn.proj", c, c)
            yield from _norm(f"{name}.norm2", c)
            yield from _linear(f"{name}.mlp.fc1", SWIN_MLP_RATIO * c, c)
            yield from _linear(f"{name}.mlp.fc2", c, SWIN_MLP_RATIO * c)
        if stage < 3:
            yield from _norm(f"backbone.layers.{stage}.downsample.norm", 4 * c)
            yield f"backbone.layers.{stage}.downsample.reduction.weight", (2 * c, 4 * c)
    for stage, c in enumerate(config.channels):
        yield from _norm(f"backbone.norm{stage}", c)


def _pixel_decoder(config: PixelDecoderConfig, inputs: Shape) -> Named:
    c, name = config.channels, "pixel_decoder"
    if config.kind == "fpn":
        for i in range(3):
            yield from _conv_norm(f"{name}.lateral.{i}", c, inputs[i], 1)
        for i, n in enumerate((c, c, c, inputs[3])):
            yield from _conv_norm(f"{name}.output.{i}", c, n, 3)
        yield from _conv(f"{name}.mask_features", config.mask_channels, c, 3)
        return
    yield f"{name}.level_embed", (LEVELS, c)
    for i, n in enumerate(reversed(inputs[1:])):
        yield from _conv(f"{name}.input_proj.{i}.0", c, n, 1)
        yield from _norm(f"{name}.input_proj.{i}.1", c)
    samples = config.heads * LEVELS * config.points
    for i in range(config.layers):
        layer = f"{name}.layers.{i}"
        yield from _linear(f"{layer}.attn.sampling_offsets", 2 * samples, c)
        yield from _linear(f"{layer}.attn.attention_weights", samples, c)
        yield from _linear(f"{layer}.attn.value_proj", c, c)
        yield from _linear(f"{layer}.attn.output_proj", c, c)
        yield from _norm(f"{layer}.norm1", c)
        yield from _linear(f"{layer}.linear1", config.ffn, c)
        yield from _linear(f"{layer}.linear2", c, config.ffn)
        yield from _norm(f"{layer}.norm2", c)
    yield from _conv_norm(f"{name}.lateral", c, inputs[0], 1)
    yield from _conv_norm(f"{name}.output", c, c, 3)
    yield from _conv(f"{name}.mask_features", config.mask_channels, c, 1)


def _transformer_decoder(
    config: TransformerDecoderConfig, mask_channels: int, classes: int
) -> Named:
    c, name = config.channels, "transformer_decoder"
    yield f"{name}.query_feat.weight", (config.queries, c)
    yield f"{name}.query_embed.weight", (config.queries, c)
    yield f"{name}.level_embed.weight", (LEVELS, c)
    for i in range(config.layers):
        layer = f"{name}.layers.{i}"
        for attention in ("cross_attn", "self_attn"):
            yield f"{layer}.{attention}.in_proj_weight", (3 * c, c)
            yield f"{layer}.{attention}.in_proj_bias", (3 * c,)
            yield from _linear(f"{layer}.{attention}.out_proj", c, c)
            yield from _norm(f"{layer}.{attention}_norm", c)
        yield from _linear(f"{layer}.linear1", config.ffn, c)
        yield from _linear(f"{layer}.linear2", c, config.ffn)
        yield from _norm(f"{layer}.ffn_norm", c)
    yield from _norm(f"{name}.norm", c)
    yield from _linear(f"{name}.class_embed", classes + 1, c)
    for i, outputs in enumerate((c, c, mask_channels)):
        yield from _linear(f"{name}.mask_embed.{i}", outputs, c)
