"""`m2f calibrate`: what it prints, and what it refuses."""

import json

import pytest


def test_it_calibrates(m2f, small, photos, tmp_path):
    out = tmp_path / "int8.m2f"
    result = m2f("calibrate", small, "--images", photos, "-o", out)
    assert "layers in int8, ranges by mse from 10 images" in result.stdout
    assert "100 or more are better" in result.stderr
    assert (tmp_path / "int8.calibration.npz").is_file()
    assert json.loads((out / "manifest.json").read_text())["precision"] == "int8"
    m2f("inspect", out)
    m2f("run", out, photos / "0.png", "-o", tmp_path / "pictures")
    refusal = m2f("calibrate", out, "--images", photos, "-o", tmp_path / "twice.m2f", code=2)
    assert "is int8 already" in refusal.stderr


def test_a_limit_gives_a_table_and_a_plot(m2f, small, photos, tmp_path):
    pytest.importorskip("matplotlib")
    words = ("calibrate", small, "--images", photos, "--max-drop")
    reached = json.loads(m2f(*words, 50, "-o", tmp_path / "a.m2f", "--json").stdout)["reached"]
    allowed = (100 - reached) * 0.7
    plot = tmp_path / "ranking.svg"
    result = m2f(*words, f"{allowed:.6f}", "-o", tmp_path / "b.m2f", "--plot", plot)
    assert "agreement on 10 images: 100.00 in float32" in result.stdout
    assert "kept" in result.stdout
    assert plot.read_text().startswith("<?xml")


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("--max-drop", "-1"), "cannot be asked for"),
        (("--method", "percentile", "--percentile", "7"), "would clip most values"),
        (("--limit", "3"), "too few"),
        (("--data", "truth.json"), "go with --max-drop"),
        (("--max-drop", "1", "--plot", "ranking.gif"), "a plot is one of"),
    ],
)
def test_options_that_cannot_be(refused, small, photos, tmp_path, words, text):
    out = tmp_path / "out.m2f"
    line = refused("calibrate", small, "--images", photos, "-o", out, *words, code=2)
    assert text in line
    assert not any(tmp_path.iterdir())


def test_too_few_images(refused, small, photos, tmp_path):
    words = ("calibrate", small, "--images", photos / "0.png", "-o", tmp_path / "out.m2f")
    assert "calibration needs 8 different" in refused(*words, code=2)
    assert not any(tmp_path.iterdir())


def test_a_cache_of_another_preprocessing(refused, m2f, small, exported, photos, tmp_path):
    out, cache = tmp_path / "out.m2f", tmp_path / "ranges.npz"
    m2f("calibrate", small, "--images", photos, "-o", out, "--cache", cache)
    words = ("calibrate", exported, "--images", photos, "-o", tmp_path / "b.m2f")
    line = refused(*words, "--cache", cache, code=2)
    assert "ranges.npz" in line
    assert "its min_size is 48, here 800" in line


def test_ranges_from_a_file(refused, m2f, small, photos, tmp_path):
    out, again = tmp_path / "out.m2f", tmp_path / "again.m2f"
    m2f("calibrate", small, "--images", photos, "-o", out)
    ranges = out / "calibration.json"
    result = m2f("calibrate", small, "--ranges", ranges, "-o", again)
    assert "ranges by mse" in result.stdout
    assert (again / "model.onnx").read_bytes() == (out / "model.onnx").read_bytes()
    words = ("calibrate", small, "-o", tmp_path / "no.m2f")
    assert "pass one of them" in refused(*words, code=2)
    assert "leave out --max-drop" in refused(
        *words, "--ranges", ranges, "--max-drop", 1, code=2
    )
    assert "no such file of ranges" in refused(*words, "--ranges", "none.json", code=3)
