"""That the training code teaches: from nothing to a stated quality on scenes never seen."""

import numpy as np
import pytest
import torch

from m2f.models.mask2former import Mask2Former, network_input
from m2f.models.matcher import Objective, Target
from m2f.train.evaluate_sample import predict
from m2f.train.quality import PanopticQuality
from m2f.train.trainer import Batch, Recipe, Trainer
from tests.train.easy import CATEGORIES, METADATA, TINY, easy

BATCH = 8
HELD_OUT = range(50)
PQ = 90
"""Reached with seeds 0, 1 and 2: 97.9, 98.0, 97.7; after 150 steps 96.2."""

INDEX = {category.name: i for i, category in enumerate(CATEGORIES)}


def batch(step):
    seen = [easy(1000 + BATCH * step + i) for i in range(BATCH)]
    images = torch.from_numpy(np.stack([scene.image for scene in seen]))
    targets = [
        Target(torch.tensor([INDEX[n] for n in scene.names]), torch.from_numpy(scene.masks))
        for scene in seen
    ]
    return Batch(network_input(images, METADATA.preprocess), targets)


@pytest.mark.slow
def test_a_short_training_from_nothing_reaches_its_quality(tmp_path):
    recipe = Recipe(
        steps=250,
        warmup=20,
        rate=2e-3,
        falls_from=0.5,
        average=0.98,
        objective=Objective(points=256),
    )
    trainer = Trainer(TINY, recipe, batch, tmp_path)
    for _ in trainer.run():
        pass
    model = Mask2Former(TINY)
    model.load_state_dict({k: torch.from_numpy(v) for k, v in trainer.result.items()})
    quality = PanopticQuality(len(CATEGORIES))
    for seed in HELD_OUT:
        truth = easy(seed)
        found = predict(model, truth.image, METADATA)
        labels = {segment.id: segment.label for segment in found.segments}
        known = {i: INDEX[name] for i, name in enumerate(truth.names, start=1)}
        quality.add(found.segment_ids, labels, truth.segments, known)
    for index, category in enumerate(CATEGORIES):
        assert 100 * quality.of_class(index).pq >= PQ, category.name
