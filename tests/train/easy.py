"""Scenes that are learnt in a minute: a horizon, and one or two large things on it."""

import dataclasses

import numpy as np
import torch
from PIL import Image, ImageDraw

from m2f.config import (
    TASKS,
    Category,
    Metadata,
    ModelConfig,
    PixelDecoderConfig,
    Preprocess,
    ResNetConfig,
    TransformerDecoderConfig,
)
from m2f.models.mask2former import Mask2Former
from m2f.train.coco import write_coco
from m2f.train.scenes import Scene, visible
from m2f.train.start import Start

CATEGORIES = (
    Category(id=1, name="ball", colour=(220, 60, 60), is_thing=True),
    Category(id=2, name="box", colour=(60, 90, 220), is_thing=True),
    Category(id=3, name="sky", colour=(150, 200, 240), is_thing=False),
    Category(id=4, name="grass", colour=(100, 180, 80), is_thing=False),
)
SIDE = 64
"""Pixels."""


def easy(seed):
    """Same seed, same scene."""
    rng = np.random.default_rng([0xEA57, seed])
    names = ["sky", "grass"]
    owner = Image.new("L", (SIDE, SIDE), 1)
    pen = ImageDraw.Draw(owner)
    pen.rectangle((0, int(rng.uniform(0.25, 0.75) * SIDE), SIDE, SIDE), fill=2)
    # One in each half, so that they hardly touch.
    for place in rng.permutation(2)[: rng.integers(1, 3)]:
        radius = rng.uniform(8, 13)
        x, y = (place + rng.uniform(0.4, 0.6)) * SIDE / 2, rng.uniform(16, SIDE - 16)
        names.append(str(rng.choice(["ball", "box"])))
        draw = pen.ellipse if names[-1] == "ball" else pen.rectangle
        draw((x - radius, y - radius, x + radius, y + radius), fill=len(names))
    segments, names = visible(np.asarray(owner), names)
    colours = {c.name: c.colour for c in CATEGORIES}
    palette = np.array([(0, 0, 0), *(colours[n] for n in names)], np.float64)
    image = palette[segments] * rng.uniform(0.8, 1.1) + rng.normal(0, 8, (SIDE, SIDE, 3))
    return Scene(np.clip(image, 0, 255).astype(np.uint8), segments, names)


def write_easy(folder, seeds):
    """As COCO panoptic, instance and semantic files; the folder."""
    write_coco((easy(seed) for seed in seeds), folder, CATEGORIES)
    return folder


TINY = ModelConfig(
    backbone=ResNetConfig(blocks=(1, 1, 1, 1), width=16, block="basic"),
    pixel_decoder=PixelDecoderConfig(channels=32, mask_channels=32, heads=2, layers=1, ffn=64),
    transformer_decoder=TransformerDecoderConfig(
        queries=8, layers=3, channels=32, heads=2, ffn=64
    ),
    classes=len(CATEGORIES),
)
METADATA = Metadata(
    task="panoptic",
    tasks=TASKS,
    categories=CATEGORIES,
    preprocess=Preprocess(resize="none"),
)


def fresh():
    """A model of these scenes that has learnt nothing."""
    return Start(name="tiny", identity="tiny", config=TINY, metadata=METADATA, weights=None)


def trained():
    """One that has not learnt much either, but is not fresh."""
    torch.manual_seed(0)
    weights = {name: w.numpy() for name, w in Mask2Former(TINY).state_dict().items()}
    return dataclasses.replace(fresh(), weights=weights)
