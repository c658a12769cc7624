"""`m2f finetune` and `m2f train-sample` from the shell; see tests/train for what they do."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from m2f.models.checkpoint import read
from tests.train.easy import CATEGORIES, write_easy

QUICK = ("--steps", 3, "--crop", "64x64", "--threads", 1)


@pytest.fixture(scope="module")
def easy(tmp_path_factory):
    """Four scenes; not to be changed."""
    return write_easy(tmp_path_factory.mktemp("easy"), range(3000, 3004))


@pytest.fixture
def data(tmp_path, monkeypatch):
    """Four scenes that a test may change, in the current folder."""
    monkeypatch.chdir(tmp_path)
    return write_easy(tmp_path / "set", range(3000, 3004))


@pytest.mark.parametrize(
    ("task", "options"),
    [("panoptic", ()), ("instance", ()), ("semantic", ("--labels", "categories.json"))],
)
def test_json(m2f, checkpoint, data, task, options):
    listed = [{"id": i, "name": c.name} for i, c in enumerate(CATEGORIES)]
    (data.parent / "categories.json").write_text(json.dumps(listed))
    words = ("finetune", checkpoint, "--data", data, "--task", task, "-o", "out", *options)
    result = m2f(*words, *QUICK, "--json")
    report = json.loads(result.stdout)
    names = [c.name for c in CATEGORIES if task != "instance" or c.is_thing]
    assert report["classes"]["new"] == names
    assert report["classes"]["dropped"] == ["class 0", "class 1", "class 2"]
    assert (report["task"], report["steps"], report["images"]) == (task, 3, 4)
    made = read("out")
    assert made.metadata.task == task
    assert [c.name for c in made.metadata.categories] == names
    assert {p.name for p in (data.parent / "out-training").iterdir()} == {
        "checkpoint.pt", "curve.jsonl", "curve.png"
    }  # fmt: skip


def test_for_people_and_export_takes_it(m2f, checkpoint, data):
    words = ("finetune", checkpoint, "--data", data, "--task", "panoptic", "-o", "out")
    result = m2f(*words, *QUICK, "--freeze", "backbone", "--folder", "run")
    for text in ("dropped", "ball, box, sky, grass", "3 steps on 4 images", "m2f export out"):
        assert text in result.stdout
    assert "the loss curve is in run" in result.stderr
    m2f("export", "out", "-o", "out.m2f")


def test_from_scratch(m2f, refused, checkpoint, data):
    words = ("finetune", "--data", data, "--task", "panoptic", "-o", "out", *QUICK)
    report = json.loads(m2f(*words, "--from-scratch", "sample", "--json").stdout)
    assert report["classes"]["kept"] == []
    words = (*words[: -len(QUICK) - 1], "other", *QUICK)
    for wrong in ((), (checkpoint, "--from-scratch", "sample")):
        assert "one of them" in refused(*words, *wrong, code=2)
    assert "no preset is named" in refused(*words, "--from-scratch", "r5", code=2)


def test_wrong_requests_leave_nothing(m2f, refused, checkpoint, data):
    words = ("finetune", checkpoint, "--task", "panoptic", "-o", "out", *QUICK)
    before = sorted(path.name for path in data.parent.rglob("*"))

    def fails(*more, code):
        message = refused(*words, *more, code=code)
        assert sorted(path.name for path in data.parent.rglob("*")) == before
        return message

    assert "no such file or folder" in fails("--data", "elsewhere", code=3)
    assert "multiples of 32" in fails("--data", data, "--crop", "100", code=2)
    assert "no such file" in refused("finetune", "no.pkl", *words[2:], "--data", data, code=3)
    assert "above 0" in fails("--data", data, "--rate", 0, code=2)
    for option, value in (("--task", "other"), ("--scale", "a:b"), ("--crop", "x")):
        m2f(*words, "--data", data, option, value, code=2)
    assert "belong to folders" in fails("--data", data, "--labels", "ids", code=2)


def test_wrong_data(refused, checkpoint, data):
    words = ("finetune", checkpoint, "--data", data, "--task", "panoptic", "-o", "out", *QUICK)
    file = data / "panoptic.json"
    whole = file.read_text()
    content = json.loads(whole)
    file.write_text(json.dumps({**content, "annotations": []}))
    assert "holds no annotation" in refused(*words, code=2)
    file.write_text("{")
    assert "is not JSON" in refused(*words, code=2)
    file.write_text(whole)
    (data / "panoptic/000000000002.png").write_bytes(b"no image")
    assert "000000000002.png: is not an image" in refused(*words, "--batch", 4, code=2)
    (data / "images/000000000002.png").unlink()
    assert "1 of 8 files" in refused(*words, code=3)
    assert [path.name for path in data.parent.iterdir()] == ["set"]


def test_without_scipy(refused, checkpoint, data, monkeypatch):
    monkeypatch.setitem(sys.modules, "scipy", None)
    words = ("finetune", checkpoint, "--data", data, "--task", "panoptic", "-o", "out")
    hint = "pip install 'm2f-deploy[train]'"
    assert hint in refused(*words, code=3)
    assert hint in refused("train-sample", code=3)


def test_train_sample_refuses_what_is_there(refused, data):
    (data.parent / "run").mkdir()
    (data.parent / "run/checkpoint.pt").touch()
    words = ("train-sample", "--folder", "run")
    assert "pass --resume" in refused(*words, code=2)
    assert "is damaged" in refused(*words, "--resume", code=2)
    assert "not empty" in refused(*words, "-o", "set", code=2)


def test_ctrl_c_and_resume_give_the_same_file(m2f, checkpoint, easy, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ["finetune", checkpoint, "--data", easy, "--task", "panoptic", "--crop", "64"]
    words = [str(word) for word in (*words, "--steps", 40, "--threads", 1)]
    process = subprocess.Popen(
        [sys.executable, "-m", "m2f", *words, "-o", "pieces"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell's background jobs ignore Ctrl-C, and so would their children.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    curve = tmp_path / "pieces-training/curve.jsonl"
    deadline = time.monotonic() + 60
    while not (curve.exists() and curve.read_text().count("\n") >= 3):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, "")
    assert "of 40, which is kept in pieces-training; the same command with --resume" in err
    assert "Traceback" not in err
    assert os.listdir(tmp_path) == ["pieces-training"]
    assert curve.read_text().count("\n") < 40
    m2f(*words, "-o", "pieces", "--resume")
    m2f(*words, "-o", "whole")
    files = [tmp_path / name / "model.safetensors" for name in ("pieces", "whole")]
    assert files[0].read_bytes() == files[1].read_bytes()
