"""`compare` against what sessions, the evaluator and NumPy say of the same bundles."""

import re
import shutil
import subprocess
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from m2f.errors import UsageError
from m2f.evaluate import Keep, evaluate, open_data
from m2f.evaluate.comparison import compare, write_comparison
from m2f.evaluate.comparison.agreement import painted
from m2f.evaluate.comparison.candidates import row_names
from m2f.evaluate.comparison.subjects import Photographs, image_files
from m2f.export import export
from m2f.export.parity import OnnxSide
from m2f.models.categories import categories_generic
from m2f.models.checkpoint import write_official
from m2f.runtime.images import decode
from m2f.runtime.preprocess import assemble
from m2f.runtime.session import load
from tests.cli.conftest import OPTIONS, TINY
from tests.evaluate.comparison_cases import coarse
from tests.evaluate.made import Scene, instance_prediction, write_scenes_of
from tests.weights import synthetic


def exported(config, path):
    write_official(synthetic(config), path.with_suffix(".pkl"))
    export(path.with_suffix(".pkl"), path, options=OPTIONS)


@pytest.fixture(scope="module")
def bundles(tmp_path_factory):
    """The reference, its equal, and one with coarse weights."""
    folder = tmp_path_factory.mktemp("bundles")
    exported(TINY, folder / "fine.m2f")
    shutil.copytree(folder / "fine.m2f", folder / "same.m2f")
    coarse(folder / "fine.m2f", folder / "coarse.m2f", steps=7)
    return [folder / f"{name}.m2f" for name in ("fine", "same", "coarse")]


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scenes") / "set"
    made = [Scene(seed, (96, 128)) for seed in (500, 501, 502)]
    write_scenes_of(folder, made, categories_generic(3))
    return folder


@pytest.fixture(scope="module")
def found(bundles, scenes):
    return compare(bundles, open_data(scenes, task="panoptic"), detailed=2, threads=1)


def test_metrics_are_the_evaluators(found, bundles, scenes):
    for row, bundle in zip(found.rows, bundles, strict=True):
        assert row.metrics == evaluate(bundle, scenes, threads=1).scores.metrics
    assert set(found.headline) <= set(found.rows[0].metrics)


def test_agreement_is_what_two_sessions_show(found, bundles, scenes):
    assert found.rows[0].agreement is None
    same = found.rows[1].agreement
    assert (same.pixels, same.mask_iou, same.classes) == (100, 100, 100)
    pixels, overlaps, classes = [], [], []
    with load(bundles[0], threads=1) as fine, load(bundles[2], threads=1) as rough:
        for path in sorted((scenes / "images").iterdir()):
            a, b = fine(path), rough(path)
            pixels.append(100 * np.mean(a.label_map == b.label_map))
            (ca, ma), (cb, mb) = (s.logits([s.prepare(path)]) for s in (fine, rough))
            kept = [q for q in range(5) if ca[0, q].argmax() != 3]
            pairs = [(ma[0, q] > 0, mb[0, q] > 0) for q in kept]
            overlaps += [[100 * (x & y).sum() / (x | y).sum() for x, y in pairs]]
            classes += [[100 * (ca[0, q].argmax() == cb[0, q].argmax()) for q in kept]]
    other = found.rows[2].agreement
    assert other.pixels == pytest.approx(np.mean(pixels))
    assert other.mask_iou == pytest.approx(np.mean([np.mean(o) for o in overlaps if o]))
    assert other.classes == pytest.approx(np.mean([np.mean(c) for c in classes if c]))
    assert other.mask_iou < 100


def test_changes_are_most_changed_first(found):
    assert [c.pixels for c in found.changes] == sorted(c.pixels for c in found.changes)[::-1]
    assert len(found.changes) == 2 * found.images
    rough = [c.pixels for c in found.changes if c.row == "coarse"]
    assert np.mean(rough) == pytest.approx(100 - found.rows[2].agreement.pixels)


def test_layers_and_flips(found, bundles, scenes):
    """Signal over noise and flips of one image, computed here from the raw tensors."""
    path = sorted((scenes / "images").iterdir())[0]
    one = compare([bundles[0], bundles[2]], Photographs((str(path),)), detailed=1, threads=1)
    with load(bundles[0], threads=1) as session:
        feeds = assemble([session.prepare(decode(path))], session.profile)
    layer = one.rows[1].layers[3]
    name = layer.name
    a, b = (OnnxSide(bundles[i] / "model.onnx", 3) for i in (0, 2))
    x, y = a.run(*feeds, layers=[name]), b.run(*feeds, layers=[name])
    signal, noise = x.layers[name], x.layers[name] - y.layers[name]
    expected = 20 * np.log10(np.linalg.norm(signal) / np.linalg.norm(noise))
    assert layer.decibel == pytest.approx(expected, abs=1e-3)
    flips = [
        100 * np.mean((u < 0) != (v < 0)) for u, v in zip(x.decisions, y.decisions, strict=True)
    ]
    assert one.rows[1].flips == pytest.approx(flips)
    assert found.rows[1].layers == ()  # equal outputs have no noise to speak of
    assert found.rows[1].flips == (0, 0, 0)


def test_costs(found, bundles):
    for row, bundle in zip(found.rows, bundles, strict=True):
        files = [f for f in bundle.iterdir() if f.name.startswith("model.onnx")]
        assert row.bytes == sum(f.stat().st_size for f in files)
        assert row.total == pytest.approx(sum(row.milliseconds.values()))
        assert min(row.milliseconds.values()) >= 0
        assert row.peak_memory is None or row.peak_memory > row.bytes
    assert found.rows[0].speed == 1


def test_without_ground_truth(bundles, scenes):
    result = compare(bundles[::2], Photographs((str(scenes / "images"),)), limit=2, detailed=0)
    assert result.images == 2
    assert all(row.metrics is None and row.layers == () for row in result.rows)
    assert "no ground truth" in result.remarks[0]


def test_goes_on_where_it_stopped(bundles, scenes, tmp_path, found):
    data = open_data(scenes, task="panoptic")
    stop = []

    def interrupt(number, _count, _key):
        stop.append(number)
        if number == 3:
            raise KeyboardInterrupt

    keep = Keep(folder=tmp_path / "kept")
    with pytest.raises(KeyboardInterrupt):
        compare(bundles, data, detailed=0, keep=keep, threads=1, progress=interrupt)
    lines = (tmp_path / "kept/images.jsonl").read_text().splitlines()
    assert len(lines) == 2
    again = Keep(folder=tmp_path / "kept", mode="resume")
    result = compare(bundles, data, detailed=0, keep=again, threads=1)
    assert [r.metrics for r in result.rows] == [r.metrics for r in found.rows]
    assert (tmp_path / "kept/images.jsonl").read_text().splitlines()[:2] == lines
    with pytest.raises(UsageError, match="cannot be gone on with: rows was"):
        compare(bundles[:2], data, detailed=0, keep=again, threads=1)


def test_what_cannot_be_compared(bundles, scenes, tmp_path):
    photographs = Photographs((str(scenes / "images"),))
    with pytest.raises(UsageError, match="one bundle and one backend"):
        compare(bundles[:1], photographs)
    with pytest.raises(UsageError, match="named twice"):
        compare([bundles[0], bundles[0]], photographs)
    exported(replace(TINY, classes=4), tmp_path / "other.m2f")
    with pytest.raises(UsageError, match=r"different models .* 3 classes, .* 4\)"):
        compare([bundles[0], tmp_path / "other.m2f"], photographs)
    with pytest.raises(UsageError, match="leaves nothing"):
        compare(bundles, open_data(scenes, task="panoptic"), limit=0)


def test_names_tell_bundles_apart(tmp_path):
    paths = [tmp_path / "a/model.m2f", tmp_path / "b/model.m2f", tmp_path / "c/int8.m2f"]
    assert row_names(paths) == ["a/model", "b/model", "c/int8"]
    assert row_names(paths[1:]) == ["model", "int8"]


def test_instances_are_painted_best_on_top():
    left, right = np.zeros((2, 2, 6), bool)
    left[:, :4], right[:, 2:] = True, True
    found = instance_prediction((2, 6), [(0, 0.9, left), (1, 0.6, right), (1, 0.2, ~left)])
    assert painted(found).tolist() == [[0, 0, 0, 0, 1, 1]] * 2
    assert painted(found.above(0.8)).tolist() == [[0, 0, 0, 0, -1, -1]] * 2


@pytest.fixture(scope="module")
def page(found, bundles, scenes, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "page.html"
    images = image_files(open_data(scenes, task="panoptic"))
    write_comparison(path, found, bundles, images, most=2, threads=1)
    return path


def test_the_page_needs_nothing_else(page, found):
    text = page.read_text(encoding="utf-8")
    assert not re.search(r'(src|href)="(?!data:|#)', text)
    for row in found.rows:
        assert f"<td>{row.name}</td>" in text
    assert text.count("data:image/jpeg") == 6
    assert text.count("where they differ") == 4


BROWSER = shutil.which("chromium") or shutil.which("google-chrome")


@pytest.mark.skipif(BROWSER is None, reason="needs Chromium")
def test_the_page_in_a_browser(page, tmp_path):
    picture = tmp_path / "page.png"
    command = [
        BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
        "--disable-background-networking", f"--user-data-dir={tmp_path / 'profile'}",
        "--window-size=1280,2400", f"--screenshot={picture}", page.as_uri(),
    ]  # fmt: skip
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    pixels = np.asarray(Image.open(picture).convert("RGB")).astype(int)
    assert pixels.shape == (2400, 1280, 3)
    # The colour of differing pixels can only come from a drawn difference map.
    marked = np.abs(pixels - (230, 30, 90)).max(axis=2) < 40
    assert marked.sum() > 50
    # Text above, plots in the middle: dark ink in every band of the first screen.
    assert all((band.max(axis=2) < 90).any() for band in np.split(pixels[:1200], 6))
