"""`finetune` from its start to a folder that the rest of the program takes."""

import dataclasses
import json

import numpy as np
import pytest

from m2f.errors import UsageError
from m2f.evaluate import evaluate, open_data
from m2f.models.checkpoint import read
from m2f.models.presets import PRESETS
from m2f.runtime.backend_torch import session_from_checkpoint
from m2f.train import sample
from m2f.train.finetuning import Settings, finetune
from m2f.train.jitter import Jitter
from m2f.train.run import read_curve
from m2f.train.start import start_afresh, start_from, with_classes
from tests.train.easy import CATEGORIES, TINY, fresh, trained, write_easy
from tests.train.test_verbs import interrupt, same

HEAD = "transformer_decoder.class_embed"
STILL = Jitter(crop=(64, 64), scale=(1, 1))
QUICK = Settings(task="panoptic", steps=4, rate=1e-3, jitter=STILL)


@pytest.fixture
def panoptic(data):
    return open_data(data, task="panoptic")


def test_learns_and_is_judged_by_m2f_eval(tmp_path, data, panoptic):
    settings = dataclasses.replace(QUICK, steps=80, rate=3e-3, batch=6, test_size=(64, 64))
    report = finetune(fresh(), panoptic, tmp_path / "out", settings=settings)
    assert report.loss.last < 0.3 * report.loss.first
    held_out = open_data(write_easy(tmp_path / "held-out", range(20)), task="panoptic")
    with session_from_checkpoint(read(report.out)) as session:
        scores = evaluate(session, held_out).scores.metrics
    # Sixteen scenes, 30 times each. Seeds 0, 1 and 2 reach 85.2, 85.3 and 86.0.
    assert scores["PQ"] > 60


def test_an_interrupted_run_ends_with_the_same_bits(tmp_path, panoptic, ctrl_c):
    whole = finetune(trained(), panoptic, tmp_path / "whole", settings=QUICK)
    seen = []
    with pytest.raises(KeyboardInterrupt, match="after step 2 of 4"):
        finetune(trained(), panoptic, tmp_path / "out", settings=QUICK, progress=interrupt(3))
    assert not (tmp_path / "out").exists()
    with pytest.raises(UsageError, match="pass --resume"):
        finetune(trained(), panoptic, tmp_path / "out", settings=QUICK)
    other = dataclasses.replace(QUICK, seed=5, batch=1)
    with pytest.raises(UsageError, match="batch was 2 and is 1, seed was 0 and is 5"):
        finetune(trained(), panoptic, tmp_path / "out", settings=other, resume=True)
    pieces = finetune(
        trained(),
        panoptic,
        tmp_path / "out",
        settings=QUICK,
        resume=True,
        progress=lambda step, steps, words: seen.append(step),
    )
    assert seen == [3, 4, 5]
    assert same(read(whole.out).weights, read(pieces.out).weights)
    assert not same(read(whole.out).weights, trained().weights)


def test_the_folder_says_how_it_was_made(tmp_path, data):
    instances = open_data(data, task="instance")
    settings = dataclasses.replace(QUICK, task="instance", jitter=Jitter(crop=(64, 96)))
    report = finetune(trained(), instances, tmp_path / "out", settings=settings)
    made = read(report.out)
    assert made.config == dataclasses.replace(TINY, classes=2)
    assert (made.metadata.task, made.metadata.tasks) == ("instance", ("instance",))
    assert [c.name for c in made.metadata.categories] == ["ball", "box"]
    resize = made.metadata.preprocess
    assert (resize.resize, resize.min_size, resize.max_size) == ("shortest_edge", 50, 125)
    record = json.loads((report.out / "training.json").read_text())
    assert record["classes"] == {
        "kept": ["ball", "box"], "new": [], "dropped": ["sky", "grass"]
    }  # fmt: skip
    assert record["loss"] == report.to_json()["loss"]
    assert (record["model"], record["data"], record["steps"]) == ("tiny", "instances.json", 4)
    rates = [step["rate"] for step in read_curve(report.folder / "curve.jsonl")]
    assert rates == pytest.approx([1e-3 * (1 - t / 4) ** 0.9 for t in range(4)])


def test_rows_of_the_class_head_follow_their_names():
    start = trained()
    ball, box, _, grass = CATEGORIES
    bus = dataclasses.replace(ball, name="bus", id=9)
    renamed = dataclasses.replace(grass, name="GRASS", id=7)
    config, weights, change = with_classes(start, (renamed, bus, box), seed=0)
    assert config.classes == 3
    assert change == (("GRASS", "box"), ("bus",), ("ball", "sky"))
    for name in ("weight", "bias"):
        old, new = start.weights[f"{HEAD}.{name}"], weights[f"{HEAD}.{name}"]
        assert len(new) == 4
        assert np.array_equal(new[[0, 2, 3]], old[[3, 1, 4]])  # the last: no object
        assert np.abs(new[1]).max() <= TINY.transformer_decoder.channels**-0.5
        assert new.dtype == old.dtype
    others = weights.keys() - {f"{HEAD}.weight", f"{HEAD}.bias"}
    assert all(weights[name] is start.weights[name] for name in others)
    other = with_classes(start, (bus,), seed=1)[1]
    assert not np.array_equal(other[f"{HEAD}.weight"][0], weights[f"{HEAD}.weight"][1])


@pytest.mark.parametrize(
    ("options", "moves", "stays"),
    [
        ({}, ("backbone.res2.0.conv1.weight", f"{HEAD}.weight"), ("norm.",)),
        ({"backbone_rate": 0.0}, ("pixel_decoder.", f"{HEAD}.weight"), ("backbone.",)),
        ({"trains_norm": True}, ("backbone.stem.conv1.norm.running_mean",), ()),
    ],
)
def test_what_learns(tmp_path, panoptic, options, moves, stays):
    settings = dataclasses.replace(QUICK, steps=2, **options)
    report = finetune(trained(), panoptic, tmp_path / "out", settings=settings)
    before, after = trained().weights, read(report.out).weights
    moved = {name for name in after if not np.array_equal(before[name], after[name])}
    for part in moves:
        assert any(name.startswith(part) for name in moved), part
    for part in stays:
        frozen = {n for n in after if n.startswith("backbone.") and part in n}
        assert frozen
        assert not frozen & moved


def test_the_backbone_learns_at_a_tenth_of_the_rate(tmp_path, panoptic):
    """AdamW's first step moves every weight by its rate, whatever the gradient."""
    settings = dataclasses.replace(QUICK, steps=1)
    report = finetune(trained(), panoptic, tmp_path / "out", settings=settings)
    before, after = trained().weights, read(report.out).weights
    far = {n: np.median(np.abs(after[n] - before[n])) for n in after if n.endswith(".weight")}
    assert far["backbone.res2.0.conv1.weight"] == pytest.approx(1e-4, rel=0.1)
    assert far["pixel_decoder.layers.0.linear1.weight"] == pytest.approx(1e-3, rel=0.1)


def test_where_to_start():
    start = start_afresh("coco-panoptic-swin-t")
    assert start.config == PRESETS["coco-panoptic-swin-t"].model
    assert start.weights is None
    assert start_afresh("sample").config == sample.CONFIG
    with pytest.raises(UsageError, match="no preset is named 'r50'"):
        start_afresh("r50")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, "at least one step"),
        ({"rate": 0.0}, "learning rate above 0"),
        ({"batch": 0}, "a batch of 0 images"),
        ({"backbone_rate": -1.0}, "from 0 on, got -1"),
        ({"test_size": (9, 8)}, "got 9 and 8"),
    ],
)
def test_settings_that_make_no_sense(tmp_path, panoptic, options, message):
    with pytest.raises(UsageError, match=message):
        finetune(
            fresh(), panoptic, tmp_path / "out", settings=dataclasses.replace(QUICK, **options)
        )
    assert list(tmp_path.iterdir()) == []


def test_a_model_that_could_not_be_written_is_refused_at_once(tmp_path, panoptic):
    pixel = dataclasses.replace(TINY.pixel_decoder, kind="fpn")
    start = dataclasses.replace(fresh(), config=dataclasses.replace(TINY, pixel_decoder=pixel))
    with pytest.raises(UsageError, match="deformable pixel decoder"):
        finetune(start, panoptic, tmp_path / "out", settings=QUICK)
    assert list(tmp_path.iterdir()) == []


def test_finetuning_twice(tmp_path, panoptic):
    """What finetuning wrote can be finetuned, with all its classes."""
    first = finetune(trained(), panoptic, tmp_path / "first", settings=QUICK)
    start = start_from(first.out)
    second = finetune(start, panoptic, tmp_path / "second", settings=QUICK)
    assert second.classes == (("ball", "box", "sky", "grass"), (), ())
