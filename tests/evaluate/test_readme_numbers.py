"""`m2f eval` on the shipped model gives the README's numbers, to 0.1."""

import re
from pathlib import Path

import pytest

from m2f.demo import sample
from m2f.evaluate import evaluate, open_data
from m2f.export import Options, export
from m2f.train.draw import draw

README = Path(__file__).parents[2] / "README.md"
STATED = 0.1

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def stated():
    """The table under "How good": columns by name."""
    lines = README.read_text(encoding="utf-8").splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("| PQ |"))
    names, values = (re.findall(r"[^|]+", lines[i]) for i in (start, start + 2))
    return {n.strip(): float(v) for n, v in zip(names, values, strict=True)}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return export(
        sample(), tmp_path_factory.mktemp("sample") / "sample.m2f", options=Options(check=False)
    ).path


@pytest.fixture(scope="module")
def held_out(tmp_path_factory):
    return draw(tmp_path_factory.mktemp("scenes") / "held-out").folder


PANOPTIC = {"PQ": "PQ", "PQ things": "PQ_things", "PQ stuff": "PQ_stuff"}


@pytest.mark.parametrize(
    ("task", "file", "columns"),
    [
        ("panoptic", "panoptic.json", PANOPTIC),
        ("instance", "instances.json", {"AP": "AP", "boundary AP": "boundary_AP"}),
        ("semantic", "panoptic.json", {"mIoU": "mIoU"}),
    ],
)
def test_the_table(stated, bundle, held_out, task, file, columns):
    data = open_data(held_out / file, task=task)
    found = evaluate(bundle, data, task=task).to_json()["metrics"]
    for column, metric in columns.items():
        assert abs(found[metric] - stated[column]) <= STATED, (column, found[metric])


def test_the_shipped_model_is_good_enough(stated):
    """What a later training may not fall below: the least that was asked of it."""
    assert stated["PQ"] >= 55
