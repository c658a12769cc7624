"""Tells whose checkpoint it is from the names, and which model from the shapes."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping

from m2f.config import (
    LEVELS,
    BackboneConfig,
    Convention,
    ModelConfig,
    PixelDecoderConfig,
    ResNetConfig,
    SwinConfig,
    TransformerDecoderConfig,
)
from m2f.errors import CheckpointError, UsageError
from m2f.models.checkpoint.shapes import Shape
from m2f.models.checkpoint.stored import shown

Shapes = Mapping[str, Shape]

# Learnable query features and level embeddings tell a Mask2Former from its predecessor.
_FORMATS: tuple[tuple[str, Convention], ...] = (
    (r"sem_seg_head\.predictor\.(static_query|query_feat|transformer_cross_att)", "official"),
    (r"model\.transformer_module\.(queries_features|level_embed)\.", "hf"),
    (r"(panoptic_head|decode_head)\.(query_feat|level_embed)\.", "mmdet"),
)

_OTHERS = (
    (r"sem_seg_head\.predictor\.(transformer\.decoder|query_embed)", "MaskFormer (version 1)"),
    (r"sem_seg_head\.predictor\.(decoder|label_enc)", "MaskDINO"),
    (r"model\.(transformer_module\.decoder|pixel_level_module\.decoder\.fpn)", "MaskFormer"),
    (r"panoptic_head\.transformer_decoder\.|panoptic_head\.pixel_decoder\.", "MaskFormer"),
    (r"(transformer|pixel_level)_module\.", "a Mask2FormerModel without its class predictor"),
    (r"model\.task_encoder|task_mlp\.", "OneFormer"),
    (r"(roi_heads|proposal_generator)\.", "a detectron2 R-CNN"),
    (r"(roi_head|rpn_head|bbox_head)\.", "an mmdet detector"),
    (r"(model\.)?(transformer\.)?(encoder|decoder)\.layers\..*(sampling_offsets)", "a DETR"),
    (r"(detr\.)?transformer\.(encoder|decoder)\.layers\.|model\.query_position_emb", "a DETR"),
    (r"image_encoder\.|vision_encoder\.", "Segment Anything"),
    (r"decode_head\.", "another mmseg or SegFormer model"),
    (r"(backbone\.)?(layers\.\d+\.blocks|layer[1-4]\.0\.conv1|stages?\.)|patch_embed\.|swin\.",
     "a backbone alone"),
)  # fmt: skip

_MOST = 1000
"""More blocks or layers than any model has; a number in a name is not trusted beyond it."""


def format_of(names: Iterable[str]) -> Convention:
    """Whose naming a file follows.

    Raises:
        CheckpointError: It is not a Mask2Former; says what it looks like. The caller adds
            the file's name.
    """
    names = list(names)
    for pattern, format in _FORMATS:
        if any(re.match(pattern, name) for name in names):
            return format
    for pattern, what in _OTHERS:
        if any(re.match(pattern, name) for name in names):
            raise CheckpointError(
                f"is not a Mask2Former, it looks like {what}; give a file of a Mask2Former"
            )
    first = ", ".join(shown(name, 60) for name in names[:3])
    raise CheckpointError(
        f"is not a Mask2Former: its {len(names)} weights have foreign names ({first}...)"
    )


def pixel_decoder_kind(names: Iterable[str]) -> str:
    """Which `PixelDecoderConfig.kind` a file holds; only the official code has two."""
    fpn = re.compile(r"sem_seg_head\.(pixel_decoder\.)?layer_4\.")
    return "fpn" if any(fpn.match(name) for name in names) else "msdeform"


def config_of(shapes: Shapes) -> ModelConfig:
    """The model whose weights these are.

    What no shape shows is assumed: see `_heads`, and `SwinConfig.pretrain_size`. A weight that
    is missing counts as the usual one, so that the comparison can name all that is missing.

    Args:
        shapes: By our names.

    Raises:
        CheckpointError: The weights contradict each other or are too few to tell.
    """
    try:
        return ModelConfig(
            backbone=_backbone(shapes),
            pixel_decoder=_pixel_decoder(shapes),
            transformer_decoder=_transformer_decoder(shapes),
            classes=_size(shapes, "transformer_decoder.class_embed.weight", 0, 134) - 1,
        )
    except UsageError as problem:
        raise CheckpointError(f"contradicts itself: {problem}") from problem


def _size(shapes: Shapes, name: str, axis: int, default: int) -> int:
    """One size of one weight."""
    if name not in shapes:
        return default
    shape = shapes[name]
    if axis >= len(shape) or not 1 <= shape[axis] <= 1 << 20:
        raise CheckpointError(f"contradicts itself: {name} has shape {list(shape)}")
    return shape[axis]


def _count(shapes: Shapes, prefix: str) -> int:
    """How many numbered parts a module has."""
    pattern = re.compile(re.escape(prefix) + r"\.(\d{1,5})\.")
    found = {int(m[1]) for name in shapes if (m := pattern.match(name))}
    if found and max(found) >= _MOST:
        raise CheckpointError(f"contradicts itself: it has a weight {prefix}.{max(found)}")
    return max(found) + 1 if found else 0


def _backbone(shapes: Shapes) -> BackboneConfig:
    if any(name.startswith("backbone.res") for name in shapes):
        bottleneck = any(re.match(r"backbone\.res\d\.\d+\.conv3\.", name) for name in shapes)
        two, three, four, five = (_count(shapes, f"backbone.res{s}") for s in (2, 3, 4, 5))
        return ResNetConfig(
            blocks=(two, three, four, five),
            width=_size(shapes, "backbone.stem.conv1.weight", 0, 64),
            block="bottleneck" if bottleneck else "basic",
        )
    if any(name.startswith("backbone.layers.") for name in shapes):
        return _swin(shapes)
    raise CheckpointError(
        "has a backbone that is neither ResNet nor Swin; only these are supported"
    )


def _swin(shapes: Shapes) -> SwinConfig:
    c = _size(shapes, "backbone.patch_embed.proj.weight", 0, 96)
    table = "backbone.layers.{}.blocks.0.attn.relative_position_bias_table"
    heads = [_size(shapes, table.format(s), 1, max(1, (c << s) // 32)) for s in range(4)]
    window = (math.isqrt(_size(shapes, table.format(0), 0, 169)) + 1) // 2
    depths = [_count(shapes, f"backbone.layers.{s}.blocks") for s in range(4)]
    return SwinConfig(
        embed_dim=c,
        depths=(depths[0], depths[1], depths[2], depths[3]),
        heads=(heads[0], heads[1], heads[2], heads[3]),
        window=window,
        # The published models with windows of 12 were pre-trained at 384 pixels.
        pretrain_size=384 if window == 12 else 224,
    )


def _pixel_decoder(shapes: Shapes) -> PixelDecoderConfig:
    c = _size(shapes, "pixel_decoder.mask_features.weight", 1, _channels(shapes))
    mask_channels = _size(shapes, "pixel_decoder.mask_features.weight", 0, 256)
    if any(name.startswith("pixel_decoder.output.0.") for name in shapes):
        return PixelDecoderConfig(
            kind="fpn", channels=c, mask_channels=mask_channels, heads=_plausible_heads(c)
        )
    heads, points = _heads(shapes, c)
    return PixelDecoderConfig(
        channels=c,
        mask_channels=mask_channels,
        heads=heads,
        points=points,
        layers=_count(shapes, "pixel_decoder.layers"),
        ffn=_size(shapes, "pixel_decoder.layers.0.linear1.weight", 0, 1024),
    )


def _transformer_decoder(shapes: Shapes) -> TransformerDecoderConfig:
    c = _channels(shapes)
    return TransformerDecoderConfig(
        queries=_size(shapes, "transformer_decoder.query_feat.weight", 0, 100),
        layers=_count(shapes, "transformer_decoder.layers"),
        channels=c,
        heads=_heads(shapes, c)[0],
        ffn=_size(shapes, "transformer_decoder.layers.0.linear1.weight", 0, 2048),
    )


def _channels(shapes: Shapes) -> int:
    """C of a query; whichever weight is there tells."""
    c = _size(shapes, "transformer_decoder.query_feat.weight", 1, 256)
    return _size(shapes, "transformer_decoder.class_embed.weight", 1, c)


def _heads(shapes: Shapes, channels: int) -> tuple[int, int]:
    """Heads M and sampling points P; shapes show only their product.

    All three code bases fix P = 4 and give both decoders the same number of heads (the
    official MODEL.MASK_FORMER.NHEADS), so M follows. Where that does not divide the channels,
    P follows from a plausible M.
    """
    rows = _size(shapes, "pixel_decoder.layers.0.attn.attention_weights.weight", 0, 0)
    samples, rest = divmod(rows, LEVELS)
    if not samples or rest:
        return _plausible_heads(channels), 4
    if samples % 4 == 0 and channels % (samples // 4) == 0:
        return samples // 4, 4
    heads = _plausible_heads(channels)
    return heads, max(1, samples // heads)


def _plausible_heads(channels: int) -> int:
    """Heads of 32 channels, as in all published models; else eight."""
    return channels // 32 if channels % 32 == 0 else 8
