"""`m2f compare` from the shell; what it computes is tested in tests/evaluate."""

import json

import pytest

from tests.evaluate.comparison_cases import coarse


@pytest.fixture
def rough(exported, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return coarse(exported, tmp_path / "rough.m2f", steps=7)


def test_page_and_figures(m2f, exported, rough, photo):
    result = m2f("compare", exported, rough, "--images", photo, "-o", "page.html", "--json")
    report = json.loads(result.stdout)
    assert [row["name"] for row in report["rows"]] == ["tiny", "rough"]
    assert json.loads((rough.parent / "page.json").read_text()) == report
    assert (rough.parent / "page.html").read_text().startswith("<!doctype html>")


def test_for_people(m2f, exported, rough, photo):
    result = m2f("compare", exported, rough, "--images", photo, "--detailed", 0)
    for text in ("same pixels", "total, ms", "rough"):
        assert text in result.stdout
    assert "comparison.html" in result.stderr


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        ((), 2, "nothing to compare on"),
        (("--images", "nowhere"), 3, "nowhere: no such file"),
        (("--images", "{photo}", "--labels", "ade20k"), 2, "describe ground truth"),
        (("--images", "{photo}", "--backend", "abacus"), 2, "unknown backend 'abacus'"),
        (("--images", "{photo}", "--resume"), 2, "name their folder"),
        (("--data", "{photo}", "--images", "a", "--images", "b"), 2, "2 were given"),
    ],
)
def test_refused(refused, exported, rough, photo, words, code, message):
    words = [word.format(photo=photo) for word in words]
    assert message in refused("compare", exported, rough, *words, code=code)
    assert not list(rough.parent.glob("comparison.*"))
