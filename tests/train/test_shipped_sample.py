"""The sample model as it is shipped: whole, small, and as good as it must be."""

from pathlib import Path

import pytest
import torch

import m2f.models
from m2f.models.checkpoint import read
from m2f.models.mask2former import Mask2Former
from m2f.train import photographs, sample
from m2f.train.evaluate_sample import evaluate, predict
from m2f.train.quality import PanopticQuality

FOLDER = Path(m2f.models.__file__).parent / "sample"


@pytest.fixture(scope="module")
def checkpoint():
    return read(FOLDER)


@pytest.fixture(scope="module")
def model(checkpoint):
    model = Mask2Former(checkpoint.config)
    model.load_state_dict({k: torch.from_numpy(v) for k, v in checkpoint.weights.items()})
    return model


def test_folder_says_all_that_training_knew(checkpoint):
    assert checkpoint.config == sample.CONFIG
    assert checkpoint.metadata == sample.METADATA


def test_folder_is_small():
    assert sum(file.stat().st_size for file in FOLDER.iterdir()) < 12e6


def test_unseen_scenes_are_segmented(model):
    # Issue 3 asks for 55 on 200 scenes; 40 of them are enough to notice a broken model.
    assert evaluate(model, count=40)["all"]["PQ"] >= 55


def test_photographs_that_it_knows_are_segmented(model):
    index = {category.name: i for i, category in enumerate(sample.CATEGORIES)}
    quality = PanopticQuality(len(sample.CATEGORIES))
    for photograph in photographs.photographs().values():
        found = predict(model, photograph.image, sample.METADATA)
        quality.add(
            found.segment_ids,
            {s.id: s.label for s in found.segments},
            photograph.segments,
            {i: index[name] for i, name in enumerate(photograph.names, start=1)},
        )
    assert 100 * quality.mean(range(len(sample.CATEGORIES))).pq >= 70
