"""PQ against the official panopticapi's recorded answers, itself, and the definition."""

import json
from fractions import Fraction

import numpy as np
import pytest

from m2f.evaluate.mapping import Matching, match
from m2f.evaluate.pq import PanopticQuality, tally
from m2f.evaluate.truth import PanopticTruth, TruthSegment
from tests.evaluate import official_pq
from tests.evaluate.cases import CASES, CAT, DOG, digest
from tests.evaluate.made import CATEGORIES, IDS, panoptic_prediction
from tests.tolerance import IOU_SUM

RECORD = json.loads(official_pq.RECORD.read_text())


def truth_of(true, truth):
    segments = [
        TruthSegment(id=k, category_id=c, is_crowd=crowd) for k, (c, crowd) in truth.items()
    ]
    return PanopticTruth(ids=true, segments=tuple(segments))


def ours(name):
    true, truth, predicted, segments = CASES[name]
    tallies = tally(truth_of(true, truth), predicted, segments)
    return {str(c): [t.iou, t.tp, t.fp, t.fn] for c, t in tallies.items()}


def by_definition(true, truth, predicted, segments):
    """Kirillov et al. 2019, section 4, with sets of pixels and exact fractions."""

    def pixels(array, key):
        return set(np.flatnonzero(array == key).tolist())

    void = pixels(true, 0)
    tallies = {c: [Fraction(0), 0, 0, 0] for c in IDS}
    matched = set()
    for key, (category, is_crowd) in truth.items():
        if is_crowd:
            continue
        own = pixels(true, key)
        ious = {
            k: Fraction(len(own & (p := pixels(predicted, k) - void)), len(own | p))
            for k, c in segments.items()
            if c == category
        }
        best = [k for k, iou in ious.items() if iou > Fraction(1, 2)]
        assert len(best) <= 1  # as the paper proves
        if best:
            tallies[category][0] += ious[best[0]]
            tallies[category][1] += 1
            matched.add(best[0])
        else:
            tallies[category][3] += 1
    for key, category in segments.items():
        crowds = [k for k, (c, is_crowd) in truth.items() if is_crowd and c == category]
        forgiving = void | (pixels(true, crowds[-1]) if crowds else set())
        own = pixels(predicted, key)
        if key not in matched and 2 * len(own & forgiving) <= len(own):
            tallies[category][2] += 1
    return {str(c): t for c, t in tallies.items() if any(t[1:])}


def close(found, expected):
    assert found.keys() == expected.keys()
    for category, (iou, *counts) in expected.items():
        assert found[category][1:] == counts
        assert abs(found[category][0] - iou) <= IOU_SUM


@pytest.mark.parametrize("name", CASES)
def test_as_panopticapi_said(name):
    assert RECORD["cases"][name]["digest"] == digest(CASES[name])
    close(ours(name), RECORD["cases"][name]["classes"])


@pytest.mark.parametrize("name", CASES)
def test_as_defined(name):
    close(ours(name), by_definition(*CASES[name]))


def test_the_record_is_of_what_panopticapi_says(tmp_path):
    pytest.importorskip("panopticapi", reason="pip install --no-deps panopticapi-lite")
    single, averages = official_pq.run(CASES, tmp_path)
    assert {n: c["classes"] for n, c in RECORD["cases"].items()} == single
    assert RECORD["averages"] == averages


def summary(names):
    metric = PanopticQuality(match(CATEGORIES, CATEGORIES, Matching()))
    records = []
    for name in names:
        true, truth, predicted, segments = CASES[name]
        prediction = panoptic_prediction(
            predicted, {k: IDS.index(c) for k, c in segments.items()}
        )
        records.append(metric.measure(truth_of(true, truth), prediction))
    return records, metric.summarise(json.loads(json.dumps(records)))


def test_averages_over_images():
    _, scores = summary(CASES)
    for suffix, expected in RECORD["averages"].items():
        for name in ("PQ", "SQ", "RQ"):
            found = scores.metrics[name + suffix]
            assert found == pytest.approx(100 * expected[name.lower()], abs=100 * IOU_SUM)
        assert scores.metrics["categories" + suffix] == expected["n"]


def test_a_category_that_nowhere_occurs_is_in_no_average():
    _, scores = summary(["the same"])
    assert scores.metrics["PQ"] == 100
    assert scores.metrics["categories"] == 2
    assert {c.category.name: c.values["PQ"] for c in scores.classes} == {
        "cat": 100,
        "dog": None,
        "grass": None,
        "sky": 100,
    }


def test_nothing_to_average_is_no_number():
    records, scores = summary(["neither"])
    assert records[0]["score"] is None
    assert scores.metrics["PQ"] is None
    assert scores.metrics["SQ_stuff"] is None


def test_categories_the_data_lacks_count_as_nothing():
    mapping = match(CATEGORIES[:1], CATEGORIES, Matching())
    true, predicted = np.array([[1, 1, 0, 0]], np.int32), np.array([[1, 1, 2, 2]], np.int32)
    prediction = panoptic_prediction(predicted, {1: 0, 2: 1})
    record = PanopticQuality(mapping).measure(truth_of(true, {1: (CAT, False)}), prediction)
    assert record["classes"] == {str(CAT): [1.0, 1, 0, 0]}
    true[:] = 1
    whole = PanopticQuality(mapping).measure(truth_of(true, {1: (CAT, False)}), prediction)
    assert str(DOG) not in whole["classes"]
