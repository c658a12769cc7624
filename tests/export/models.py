"""Models to export in tests: published ones with weights by the rule, and small odd ones."""

import functools

from m2f.config import (
    Metadata,
    ModelConfig,
    PixelDecoderConfig,
    ResNetConfig,
    SwinConfig,
    TransformerDecoderConfig,
)
from m2f.models.categories import categories_generic
from m2f.models.checkpoint import Checkpoint
from m2f.models.presets import preset
from tests.weights import synthetic

SMALL_DECODER = TransformerDecoderConfig(queries=7, layers=4, channels=64, heads=2, ffn=96)
SMALL_PIXELS = PixelDecoderConfig(
    channels=64, mask_channels=32, heads=2, points=3, layers=2, ffn=80
)
SMALL_SWIN = SwinConfig(embed_dim=16, depths=(2, 2, 2, 2), heads=(1, 2, 2, 4), window=5)

SMALL = {
    "basic_blocks": ModelConfig(
        backbone=ResNetConfig(blocks=(1, 2, 1, 1), width=16, block="basic"),
        pixel_decoder=SMALL_PIXELS,
        transformer_decoder=SMALL_DECODER,
        classes=5,
    ),
    "bottlenecks_and_plain_pyramid": ModelConfig(
        backbone=ResNetConfig(blocks=(1, 1, 1, 1), width=8),
        pixel_decoder=PixelDecoderConfig(kind="fpn", channels=64, mask_channels=32),
        transformer_decoder=SMALL_DECODER,
        classes=3,
    ),
    "odd_windows": ModelConfig(
        backbone=SMALL_SWIN,
        pixel_decoder=SMALL_PIXELS,
        transformer_decoder=SMALL_DECODER,
        classes=1,
    ),
}


@functools.lru_cache(maxsize=1)
def published(name):
    """A checkpoint of a published model's shape."""
    known = preset(name)
    return Checkpoint(
        path=name,
        format="official",
        sha256="0" * 64,
        weights=synthetic(known.model),
        config=known.model,
        metadata=known.metadata,
        preset=name,
        notes=(),
    )


@functools.cache
def small(name):
    """A checkpoint of a small model."""
    return checkpoint_of(SMALL[name], name)


def checkpoint_of(config, name):
    """A checkpoint of any model, with weights by the rule."""
    return Checkpoint(
        path=f"{name}.pth",
        format="official",
        sha256="0" * 64,
        weights=synthetic(config),
        config=config,
        metadata=Metadata(
            task="panoptic",
            tasks=("panoptic", "instance", "semantic"),
            categories=categories_generic(config.classes),
        ),
        preset=None,
        notes=(),
    )
