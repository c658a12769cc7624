"""Runs that are interrupted, refused, or end; and `train_sample` on a model in miniature."""

import dataclasses
import json
import os
import signal
import sys

import numpy as np
import pytest
from PIL import Image

from m2f.errors import CheckFailed, DataError, MissingDependency, UsageError
from m2f.models.checkpoint import read
from m2f.train import sample
from m2f.train.curve import draw_curve
from m2f.train.libraries import require_libraries
from m2f.train.run import follow, held, losses, stop_signals
from m2f.train.sample_run import train_sample
from m2f.train.trainer import CHECKPOINT, Batch, Recipe, Trainer
from tests.train import test_trainer

SMALL = Recipe(steps=6, warmup=2, average=0.9)


def trainer(folder, recipe=SMALL, **options):
    return Trainer(test_trainer.CONFIG, recipe, test_trainer.batch, folder, **options)


def interrupt(at, number=signal.SIGINT):
    """Sends this process a signal before a step."""

    def progress(step, steps, words):
        if step == at:
            os.kill(os.getpid(), number)

    return progress


def same(a, b):
    assert a.keys() == b.keys()
    return all(np.array_equal(a[name], b[name]) for name in a)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The weights of a run that nothing interrupted."""
    run = trainer(tmp_path_factory.mktemp("whole"))
    follow(run)
    return run.result


def test_an_interrupted_run_goes_on_to_the_same_bits(tmp_path, whole, ctrl_c):
    with pytest.raises(KeyboardInterrupt, match=r"after step 2 of 6.*--resume goes on"):
        follow(trainer(tmp_path), progress=interrupt(3))
    resumed = trainer(tmp_path)
    assert resumed.step == 2
    follow(resumed)
    assert same(resumed.result, whole)
    assert len((tmp_path / "curve.jsonl").read_text().splitlines()) == 6


def test_a_crashed_run_goes_on_to_the_same_bits(tmp_path, whole):
    def crash(step, steps, words):
        if step == 4:
            raise OSError("the terminal is gone")

    with pytest.raises(OSError, match="gone"):
        follow(trainer(tmp_path), progress=crash, save_every_s=0)
    resumed = trainer(tmp_path)
    assert 0 < resumed.step < 4
    follow(resumed)
    assert same(resumed.result, whole)


def test_a_wrong_batch_ends_the_run_after_the_steps_before_it(tmp_path, whole):
    def batch(step):
        if step == 2:
            raise DataError("street.png: is damaged")
        return test_trainer.batch(step)

    with pytest.raises(DataError, match="damaged"):
        follow(Trainer(test_trainer.CONFIG, SMALL, batch, tmp_path))
    resumed = trainer(tmp_path)
    assert resumed.step == 2
    follow(resumed)
    assert same(resumed.result, whole)


def test_a_loss_that_is_no_number_spoils_no_weight(tmp_path):
    def batch(step):
        images, targets = test_trainer.batch(step)
        return Batch(images * float("nan"), targets)

    run = Trainer(test_trainer.CONFIG, SMALL, batch, tmp_path)
    with pytest.raises(CheckFailed, match="step 0: the loss is nan"):
        follow(run)
    assert all(parameter.isfinite().all() for parameter in run.model.parameters())


def test_a_polite_kill_keeps_the_step(tmp_path):
    with pytest.raises(SystemExit) as stop:
        follow(trainer(tmp_path), progress=interrupt(2, signal.SIGTERM))
    assert stop.value.code == 128 + signal.SIGTERM
    assert trainer(tmp_path).step == 1


def test_the_second_ctrl_c_acts_at_once(ctrl_c):
    with pytest.raises(KeyboardInterrupt), stop_signals() as stopped_by:  # noqa: PT012
        os.kill(os.getpid(), signal.SIGINT)
        assert stopped_by() == signal.SIGINT
        os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_run_with_other_settings_is_refused(tmp_path):
    follow(trainer(tmp_path, about={"seed": 1, "steps": 6}))
    with pytest.raises(UsageError, match="seed was 1 and is 2; pass the same"):
        trainer(tmp_path, about={"seed": 2, "steps": 6})


def test_folders_that_cannot_be_used_are_refused(tmp_path):
    folder, out = tmp_path / "run", tmp_path / "out"
    with held(folder, out, resume=False):
        with (
            pytest.raises(UsageError, match="another process is training there"),
            held(folder, out, resume=True),
        ):
            pass
        (folder / CHECKPOINT).touch()
    with pytest.raises(UsageError, match="pass --resume"), held(folder, out, resume=False):
        pass
    with pytest.raises(UsageError, match="not empty"), held(out, folder, resume=False):
        pass
    inside = out / "run"
    with pytest.raises(UsageError, match="cannot be kept in"), held(inside, out, resume=False):
        pass
    assert not out.exists()


@pytest.mark.parametrize("steps", [1, 2, 1000])
def test_the_curve_is_drawn(tmp_path, steps):
    records = [{"step": i, "loss": 100 / (1 + i)} for i in range(steps)]
    draw_curve(records, tmp_path / "curve.png")
    pixels = np.asarray(Image.open(tmp_path / "curve.png").convert("RGB")).astype(int)
    blue = np.argwhere((pixels[..., 2] > pixels[..., 0] + 60).T)  # x, y of the mean
    if steps > 2:
        left, right = blue[0, 1], blue[-1, 1]
        assert left < right - 200  # falls from top left to bottom right
    assert losses(records).last <= losses(records).first


@pytest.fixture
def miniature(monkeypatch):
    """The sample model's training, small."""
    config = dataclasses.replace(test_trainer.CONFIG, classes=len(sample.CATEGORIES))
    monkeypatch.setattr(sample, "CONFIG", config)
    monkeypatch.setattr(sample, "BATCH", 2)
    for sizes in ("SMALL", "LARGE"):
        monkeypatch.setattr(sample, sizes, ((64, 64),))


def test_train_sample(tmp_path, miniature, ctrl_c):
    def train(name, **options):
        folder, out = tmp_path / f"{name}-run", tmp_path / name
        return train_sample(out, folder=folder, steps=4, scenes=2, **options)

    seen = []
    report = train("whole", progress=lambda step, steps, words: seen.append((step, steps)))
    assert seen[0] == (1, 4)
    assert report.quality.keys() == {"all", "things", "stuff", "per_class"}
    with pytest.raises(KeyboardInterrupt):
        train("pieces", progress=interrupt(2))
    assert not (tmp_path / "pieces").exists()
    train("pieces", resume=True)
    files = [tmp_path / name / "model.safetensors" for name in ("whole", "pieces")]
    assert files[0].read_bytes() == files[1].read_bytes()
    assert read(tmp_path / "whole").metadata.categories == sample.CATEGORIES
    assert "4 steps of 2 images" in (tmp_path / "whole/README.md").read_text()
    assert json.loads(json.dumps(report.to_json()))["steps"] == 4
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"whole", "whole-run", "pieces", "pieces-run"}


def test_a_short_run_sees_photographs_too(tmp_path, miniature, monkeypatch):
    seen, whole, batch = [], sample.RECIPE.steps, sample.batch
    monkeypatch.setattr(sample, "batch", lambda step: seen.append(step) or batch(step))
    train_sample(tmp_path / "out", folder=tmp_path / "run", steps=4, scenes=1)
    assert seen == [0, whole // 4, whole // 2, 3 * whole // 4]


@pytest.mark.parametrize("numbers", [{"scenes": 0}, {"steps": 0}])
def test_numbers_that_make_no_sense(tmp_path, numbers):
    with pytest.raises(UsageError, match="at least one"):
        train_sample(tmp_path / "out", folder=tmp_path / "run", **numbers)
    assert list(tmp_path.iterdir()) == []


def test_missing_libraries_are_all_named(monkeypatch):
    require_libraries()
    for module in ("torch", "scipy"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingDependency, match=r"PyTorch and SciPy.*m2f-deploy\[train\]"):
        require_libraries()
