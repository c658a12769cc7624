"""A run as small as it can be: the loss falls, and resuming changes nothing."""

import itertools
import json

import numpy as np
import pytest
import torch

from m2f.config import (
    ModelConfig,
    PixelDecoderConfig,
    ResNetConfig,
    TransformerDecoderConfig,
)
from m2f.errors import CheckpointError
from m2f.train import sample
from m2f.train.scenes import scene
from m2f.train.trainer import Batch, Recipe, Trainer

CONFIG = ModelConfig(
    backbone=ResNetConfig(blocks=(1, 1, 1, 1), width=16, block="basic"),
    pixel_decoder=PixelDecoderConfig(channels=32, mask_channels=32, heads=2, layers=1, ffn=64),
    transformer_decoder=TransformerDecoderConfig(
        queries=10, layers=3, channels=32, heads=2, ffn=64
    ),
    classes=len(sample.CATEGORIES),
)


def batch(step):
    """Four scenes, the same eight over and over."""
    seen = [scene((4 * step + i) % 8, (64, 64)) for i in range(4)]
    images = torch.from_numpy(np.stack([s.image for s in seen]))
    targets = [sample.target_from_scene(s, (64, 64)) for s in seen]
    return Batch((images.float() / 64 - 2).permute(0, 3, 1, 2), targets)


def train(folder, *pieces, **recipe):
    for until in pieces:
        trainer = Trainer(CONFIG, Recipe(warmup=5, average=0.9, **recipe), batch, folder)
        records = list(trainer.run(until=until, save_every=2))
    return trainer, records


@pytest.mark.parametrize("bfloat16", [False, True])
def test_resuming_changes_nothing(tmp_path, bfloat16):
    whole, _ = train(tmp_path / "whole", 6, steps=8, bfloat16=bfloat16)
    pieces, _ = train(tmp_path / "pieces", 1, 4, 6, steps=8, bfloat16=bfloat16)
    for name, weight in whole.model.state_dict().items():
        assert torch.equal(weight, pieces.model.state_dict()[name]), name
        assert torch.equal(whole.average[name], pieces.average[name]), name
    curves = [
        [json.loads(line) for line in (tmp_path / run / "curve.jsonl").open()]
        for run in ("whole", "pieces")
    ]
    for a, b in zip(*curves, strict=True):
        assert {**a, "seconds": 0} == {**b, "seconds": 0}


def test_a_run_killed_after_its_checkpoint_repeats_no_line(tmp_path):
    train(tmp_path, 2, steps=8)
    with (tmp_path / "curve.jsonl").open("a") as curve:
        curve.write('{"step": 2}\n')
    train(tmp_path, 4, steps=8)
    steps = [json.loads(line)["step"] for line in (tmp_path / "curve.jsonl").open()]
    assert steps == [0, 1, 2, 3]


def test_checkpoint_of_another_model_is_refused(tmp_path):
    train(tmp_path, 1, steps=8)
    other = ModelConfig(backbone=ResNetConfig(), classes=3)
    with pytest.raises(CheckpointError, match="does not fit"):
        Trainer(other, Recipe(steps=8), batch, tmp_path)


def test_loss_falls(tmp_path):
    _, records = train(tmp_path, 120, steps=120, rate=2e-3)
    first = np.mean([r["loss"] for r in records[:4]])
    last = np.mean([r["loss"] for r in records[-4:]])
    # Eight scenes, 60 times each: half the loss is gone long before they are learnt by heart.
    assert last < 0.5 * first


def test_learning_rate_rises_stays_and_falls_to_nothing():
    recipe = Recipe(steps=100, warmup=10, rate=1.0, falls_from=0.5)
    rates = [recipe.rate_at(step) for step in range(100)]
    assert rates[:10] == pytest.approx(np.arange(1, 11) / 10)
    assert rates[10:51] == [1.0] * 41
    assert all(a > b for a, b in itertools.pairwise(rates[50:]))
    assert rates[-1] < 2e-3


def test_held_out_scenes_are_never_trained_on():
    last = sample.training_seed(sample.RECIPE.steps, sample.BATCH)
    assert sample.training_seed(0, 0) > sample.held_out_seed(999_999)
    assert last > sample.training_seed(0, 0)


def test_sample_batch_is_a_function_of_its_step():
    step = sample.RECIPE.steps - 1  # large, photographs among them
    first, again = sample.batch(step), sample.batch(step)
    assert torch.equal(first.images, again.images)
    assert first.images.shape[2] % 32 == first.images.shape[3] % 32 == 0
    for a, b in zip(first.targets, again.targets, strict=True):
        assert torch.equal(a.masks, b.masks)
        assert a.classes.max() < sample.CONFIG.classes
