"""Models small enough to be written and read in milliseconds, in every format."""

import zlib
from pathlib import Path

import numpy as np

from m2f.config import (
    Metadata,
    ModelConfig,
    PixelDecoderConfig,
    ResNetConfig,
    SwinConfig,
    TransformerDecoderConfig,
)
from m2f.models.categories import categories_generic
from m2f.models.checkpoint import weight_shapes
from m2f.models.checkpoint.names import layout, reordered_for_mmdet
from m2f.models.checkpoint.stored import Storage, StoredTensor, contiguous

HEADS = {
    "pixel_decoder": PixelDecoderConfig(
        channels=64, mask_channels=32, heads=2, layers=2, ffn=48
    ),
    "transformer_decoder": TransformerDecoderConfig(
        queries=5, layers=3, channels=64, heads=2, ffn=40
    ),
    "classes": 7,
}
RESNET = ModelConfig(backbone=ResNetConfig(blocks=(1, 2, 1, 1), width=8), **HEADS)
BASIC = ModelConfig(backbone=ResNetConfig(blocks=(2, 1, 1, 1), width=8, block="basic"), **HEADS)
SWIN = ModelConfig(
    backbone=SwinConfig(embed_dim=16, depths=(1, 1, 2, 1), heads=(1, 2, 2, 4), window=3),
    **HEADS,
)
FPN = ModelConfig(
    backbone=ResNetConfig(blocks=(1, 1, 1, 1), width=8),
    pixel_decoder=PixelDecoderConfig(kind="fpn", channels=64, mask_channels=32, heads=2),
    transformer_decoder=HEADS["transformer_decoder"],
    classes=7,
)
MODELS = {"resnet": RESNET, "basic": BASIC, "swin": SWIN, "fpn": FPN}
METADATA = Metadata(task="panoptic", tasks=("panoptic",), categories=categories_generic(7))


def distinct(shapes):
    """Different finite bits for each weight and position, made at the speed of memory."""
    weights = {}
    for name, shape in shapes.items():
        bits = np.arange(np.prod(shape), dtype=np.uint32)
        bits += np.uint32(zlib.crc32(name.encode()) & 0x0FFFFFFF)
        bits &= np.uint32(0x3FFFFFFF)  # as float32: 0 <= value < 2
        weights[name] = bits.view(np.float32).reshape(shape)
    return weights


def weights_of(config):
    return distinct(weight_shapes(config))


def as_format(weights, config, format):
    """The same weights as a file of ``format`` stores them."""
    out = {}
    for theirs, place in layout(config, format).items():
        part = np.split(weights[place.name], place.parts)[place.part]
        out[theirs] = reordered_for_mmdet(part) if place.is_reordered else part
    return out


def stored(arrays):
    """What a reader makes of arrays."""
    return {
        name: StoredTensor(
            Storage(lambda a=a: memoryview(np.ascontiguousarray(a).reshape(-1).view(np.uint8))),
            a.dtype.name,
            0,
            a.shape,
            contiguous(a.shape),
        )
        for name, a in arrays.items()
    }


def same(left, right):
    """Whether two sets of weights are equal to the bit, names, order and types included."""
    return list(left) == list(right) and all(
        a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
        for a, b in zip(left.values(), right.values(), strict=True)
    )


def leftovers(folder):
    """Names in a folder, hidden ones too."""
    return sorted(path.name for path in Path(folder).iterdir())
