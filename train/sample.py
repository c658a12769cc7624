"""The sample model: what it is, what it learns from, and how.

It is small enough to ship and to train on a laptop's CPU, and it has really learnt: to see
the drawn scenes of `m2f.train.scenes`, and a handful of photographs that it knows by heart.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from m2f.config import (
    Category,
    Metadata,
    ModelConfig,
    PixelDecoderConfig,
    Preprocess,
    ResNetConfig,
    TransformerDecoderConfig,
)
from m2f.models.mask2former import network_input
from m2f.models.matcher import Target
from m2f.train import photographs, scenes
from m2f.train.scenes import Scene
from m2f.train.trainer import Batch, Recipe, Trainer

CATEGORIES: tuple[Category, ...] = scenes.CATEGORIES + photographs.CATEGORIES

CONFIG = ModelConfig(
    backbone=ResNetConfig(blocks=(2, 2, 2, 1), width=32, block="basic"),
    pixel_decoder=PixelDecoderConfig(
        channels=128, mask_channels=128, heads=4, layers=3, ffn=256
    ),
    transformer_decoder=TransformerDecoderConfig(
        queries=40, layers=6, channels=128, heads=4, ffn=256
    ),
    classes=len(CATEGORIES),
)
PREPROCESS = Preprocess(resize="shortest_edge", min_size=160, max_size=320)
METADATA = Metadata(
    task="panoptic",
    tasks=("panoptic", "instance", "semantic"),
    categories=CATEGORIES,
    preprocess=PREPROCESS,
)

RECIPE = Recipe(steps=7_600, falls_from=0.6, bfloat16=True)
BATCH = 8
GROWS = 5500
"""Step from which images are larger."""
SMALL = ((128, 128), (128, 128), (128, 160), (160, 128))
LARGE = ((160, 160), (160, 160), (160, 192), (192, 160), (160, 256))
PHOTOGRAPHS_FROM, PHOTOGRAPHS_SHARE = 2000, 0.25
"""Step from which photographs are among the scenes, and how many then."""

_INDEX = {category.name: i for i, category in enumerate(CATEGORIES)}


def batch(step: int) -> Batch:
    """What the sample model sees at a step: scenes, later photographs among them."""
    rng = np.random.default_rng([0x5A3B1E, step])
    grown = step >= GROWS
    sizes = LARGE if grown else SMALL
    size = sizes[rng.integers(len(sizes))]
    seen = []
    for i in range(BATCH):
        if step >= PHOTOGRAPHS_FROM and rng.random() < PHOTOGRAPHS_SHARE:
            seen.append(photographs.view(rng, size))
        else:
            seen.append(scenes.scene(training_seed(step, i), size))
    # As users' images are: not always a multiple of 32, so padded right or at the bottom.
    valid = list(size)
    if rng.random() < 0.4:
        valid[rng.integers(2)] -= int(rng.integers(1, 32))
    images = torch.from_numpy(np.stack([s.image for s in seen]))
    valid_sizes = torch.tensor([valid] * len(seen))
    pixels = network_input(images, PREPROCESS, image_size=valid_sizes)
    return Batch(pixels, [target_from_scene(s, (valid[0], valid[1])) for s in seen])


def training_seed(step: int, index: int) -> int:
    """Seed of a training scene. Those of `held_out_seed` are never among them."""
    return 1_000_000 + step * BATCH + index


def held_out_seed(index: int) -> int:
    """Seed of a scene for judging, index 0 to 999,999."""
    return index


def target_from_scene(scene: Scene, valid: tuple[int, int]) -> Target:
    """The truth as the criterion takes it; nothing is true beyond ``valid``."""
    masks = torch.from_numpy(scene.masks)
    masks[:, valid[0] :] = False
    masks[:, :, valid[1] :] = False
    seen = masks.flatten(1).any(1)
    classes = torch.tensor([_INDEX[name] for name in scene.names], dtype=torch.int64)
    return Target(classes[seen], masks[seen])


def train(folder: Path, *, until: int | None = None) -> Iterator[dict[str, float]]:
    """Trains the sample model, or goes on doing so.

    Args:
        folder: Of the run's checkpoint and loss curve.
        until: Stop before this step; default: train to the end.

    Yields:
        Each step's record.
    """
    yield from Trainer(CONFIG, RECIPE, batch, folder).run(until=until)
