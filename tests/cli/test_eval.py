"""`m2f eval` from the shell; what it computes is tested in tests/evaluate."""

import json

import numpy as np
import pytest

from m2f.models.categories import categories_generic
from tests.evaluate.made import Scene, edit, write_scenes_of

CLASSES = categories_generic(3)


@pytest.fixture
def data(tmp_path, monkeypatch):
    """Two scenes of the model's three classes; results go beside them unless told."""
    monkeypatch.chdir(tmp_path)
    write_scenes_of(tmp_path / "set", [Scene(seed, (48, 64)) for seed in (400, 401)], CLASSES)
    return tmp_path / "set"


@pytest.mark.parametrize(
    ("task", "options", "figure"),
    [
        ("panoptic", (), "PQ"),
        ("instance", (), "boundary_AP"),
        ("semantic", ("--labels", "indices"), "mIoU"),
    ],
)
def test_json(m2f, exported, data, task, options, figure):
    words = ("eval", exported, "--data", data, "--task", task, *options)
    report = json.loads(m2f(*words, "--json").stdout)
    assert report["task"] == task
    assert report["images"]["evaluated"] == 2
    assert 0 <= report["metrics"][figure] <= 100
    assert [c["name"] for c in report["per_class"]] == [c.name for c in CLASSES]
    folder = data.parent / f"tiny-{task}-results"
    assert json.loads((folder / "report.json").read_text())["metrics"] == report["metrics"]


def test_for_people(m2f, exported, data):
    result = m2f("eval", exported, "--data", data, "--html", "page.html", "--limit", 1)
    for text in ("PQ_things", "class 2", "1 images"):
        assert text in result.stdout
    assert "note: only 1 of 2 images were evaluated" in result.stderr
    assert (data.parent / "page.html").read_text().startswith("<!doctype html>")


def test_resume(m2f, refused, exported, data):
    words = ("eval", exported, "--data", data, "--results", "kept")
    m2f(*words, "--limit", 1)
    assert "holds results already; pass --resume" in refused(*words, code=2)
    report = json.loads(m2f(*words, "--resume", "--json").stdout)
    assert report["images"]["resumed"] == 1
    assert "cannot be gone on with: data" in refused(
        "eval", exported, "--data", data / "instances.json", "--task", "instance",
        "--results", "kept", "--resume", code=2,
    )  # fmt: skip
    report = json.loads(m2f(*words, "--overwrite", "--json").stdout)
    assert report["images"]["resumed"] == 0
    assert "pass one of them" in refused(*words, "--overwrite", "--resume", code=2)


def test_wrong_data(refused, exported, data):
    words = ("eval", exported, "--data")
    assert "no such file or folder" in refused(*words, data / "elsewhere", code=3)
    (data / "images/0001.png").unlink()
    assert "1 of 4 files" in refused(*words, data, code=3)
    edit(data / "panoptic.json", lambda c: c["categories"][1].update(name="cow"))
    assert "lacks 1 of the data set's 3 categories: cow (1);" in refused(*words, data, code=2)
    (data / "panoptic.json").write_text("[]")
    assert "holds a JSON list" in refused(*words, data, code=2)


def test_categories_by_id(m2f, exported, data):
    edit(data / "panoptic.json", lambda c: c["categories"][1].update(name="cow"))
    words = ("eval", exported, "--data", data, "--json")
    result = m2f(*words, "--match-by", "ids")
    assert json.loads(result.stdout)["categories"]["matched_by_id_alone"] == [
        "cow (1) = class 1"
    ]
    assert "matched by id, their names differ" in result.stderr
    allowed = m2f(*words, "--allow-missing", "--overwrite")
    assert json.loads(allowed.stdout)["categories"]["missing_in_model"] == ["cow"]
    assert np.isclose(json.loads(allowed.stdout)["per_class"][1]["PQ"], 0)
