"""The golden model fixtures: which model, which weights, which images."""

import functools
from dataclasses import dataclass

import numpy as np
import torch

from m2f.config import ModelConfig, Preprocess, ResNetConfig, SwinConfig
from m2f.models.mask2former import model_from_weights
from tests import golden
from tests.weights import synthetic

R101 = ResNetConfig(blocks=(3, 4, 23, 3))


@dataclass(frozen=True)
class Fixture:
    """One golden folder."""

    name: str
    config: ModelConfig
    format: str = "official"

    @property
    def golden(self):
        return golden.load(self.name, "golden.npz")

    @property
    def floor(self):
        """The official code's own noise between float64 and float32."""
        return golden.load(self.name, "stats.json")["noise_floor"]["float64_vs_float32"]

    @property
    def preprocess(self):
        if self.format == "official":
            return Preprocess()
        mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
        return Preprocess(mean=tuple(255 * m for m in mean), std=tuple(255 * s for s in std))

    def batch(self):
        """Its images in one zero-padded batch, uint8 [N, H, W, 3], and their sizes [N, 2]."""
        archive = golden.load(self.name, "input.npz")
        images = [archive[key] for key in sorted(archive)]
        sizes = np.array([image.shape[:2] for image in images])
        batch = np.zeros((len(images), *sizes.max(0), 3), np.uint8)
        for row, image in zip(batch, images, strict=True):
            row[: image.shape[0], : image.shape[1]] = image
        return batch, sizes

    def model(self, dtype=torch.float32):
        return model_from_weights(self.config, synthetic(self.config, self.format), dtype=dtype)


R50_PANOPTIC = Fixture(
    "official_r50_coco_panoptic", ModelConfig(backbone=ResNetConfig(), classes=133)
)
R50_BATCH = Fixture(
    "official_r50_coco_instance_batch2_pad", ModelConfig(backbone=ResNetConfig(), classes=80)
)
R101_PANOPTIC = Fixture(
    "official_r101_cityscapes_panoptic", ModelConfig(backbone=R101, classes=19)
)
SWIN_T_SEMANTIC = Fixture(
    "official_swin_t_ade20k_semantic", ModelConfig(backbone=SwinConfig(), classes=150)
)
SWIN_T_HF = Fixture(
    "hf_swin_t_coco_panoptic", ModelConfig(backbone=SwinConfig(), classes=133), "hf"
)
FIXTURES = (R50_PANOPTIC, R50_BATCH, R101_PANOPTIC, SWIN_T_SEMANTIC, SWIN_T_HF)


@functools.lru_cache(maxsize=1)
def reference_run(fixture, dtype=torch.float32):
    """The reference model on a fixture's images: the network's input and its output."""
    from m2f.models.mask2former import network_input

    batch, sizes = map(torch.from_numpy, fixture.batch())
    with torch.inference_mode():
        images = network_input(batch, fixture.preprocess, image_size=sizes).to(dtype)
        return images, fixture.model(dtype)(images)
