"""Semantic figures against plain counting, pixel by pixel."""

import json
from collections import Counter
from fractions import Fraction

import numpy as np
import pytest

from m2f.evaluate.mapping import Matching, match
from m2f.evaluate.miou import SemanticQuality
from m2f.evaluate.truth import PanopticTruth, SemanticTruth, TruthSegment
from tests.evaluate.made import CATEGORIES, IDS, Scene, semantic_prediction

SAME = match(CATEGORIES, CATEGORIES, Matching())


def summary(pairs, mapping=SAME):
    metric = SemanticQuality(mapping)
    records = [
        metric.measure(SemanticTruth(labels=np.asarray(t, np.int32)), semantic_prediction(p))
        for t, p in pairs
    ]
    return records, metric.summarise(json.loads(json.dumps(records)))


def by_counting(pairs):
    """The four figures of SemSegEvaluator's definition, with exact fractions, in percent."""
    pixels = Counter(
        pair
        for truth, predicted in pairs
        for pair in zip(truth.ravel().tolist(), predicted.ravel().tolist(), strict=True)
        if pair[0] >= 0
    )
    classes = sorted({t for t, _ in pixels})
    total = sum(pixels.values())
    ious, accuracies, weighted = [], [], Fraction(0)
    for c in classes:
        right = pixels[c, c]
        labelled = sum(n for (t, _), n in pixels.items() if t == c)
        either = sum(n for pair, n in pixels.items() if c in pair)
        ious.append(Fraction(right, either))
        accuracies.append(Fraction(right, labelled))
        weighted += ious[-1] * Fraction(labelled, total)
    right = sum(n for (t, p), n in pixels.items() if t == p)
    means = {"mIoU": sum(ious) / len(ious), "mACC": sum(accuracies) / len(accuracies)}
    figures = {**means, "fwIoU": weighted, "pACC": Fraction(right, total)}
    return {name: float(100 * value) for name, value in figures.items()}


def test_as_counted(scenes):
    pairs = [(s.semantic, s.predict("semantic").label_map) for s in scenes]
    assert any((t == -1).any() for t, _ in pairs)
    records, scores = summary(pairs)
    for name, value in by_counting(pairs).items():
        assert scores.metrics[name] == pytest.approx(value, rel=1e-12)
    for record, pair in zip(records, pairs, strict=True):
        assert record["score"] == pytest.approx(by_counting([pair])["mIoU"], rel=1e-12)


def test_perfect_but_for_void():
    truth = np.array([[0, 0, -1], [2, 2, -1]])
    predicted = np.array([[0, 0, 3], [2, 2, 1]])
    _, scores = summary([(truth, predicted)])
    assert [scores.metrics[n] for n in ("mIoU", "fwIoU", "mACC", "pACC")] == [100] * 4
    # What is predicted on void alone occurs nowhere.
    assert [c.values["IoU"] for c in scores.classes] == [100, None, 100, None]


def test_a_class_that_is_only_predicted_is_in_no_mean_but_costs_the_others():
    _, scores = summary([(np.array([[0, 0, 0, 0]]), np.array([[0, 0, 1, 1]]))])
    assert scores.metrics["mIoU"] == 50
    assert scores.metrics["categories"] == 1


def test_predictions_of_categories_the_data_lacks_miss():
    mapping = match(CATEGORIES[:2], CATEGORIES, Matching())
    _, scores = summary([(np.array([[0, 0, 1, 1]]), np.array([[0, 2, 3, 1]]))], mapping)
    assert scores.metrics["pACC"] == 50
    assert scores.metrics["mIoU"] == 50


def test_segments_become_classes():
    scene = Scene(5)
    segments = tuple(
        TruthSegment(id=k, category_id=IDS[v], is_crowd=k in scene.crowds)
        for k, v in scene.labels.items()
    )
    prediction = scene.predict("semantic")
    metric = SemanticQuality(SAME)
    assert metric.measure(
        PanopticTruth(ids=scene.ids, segments=segments), prediction
    ) == metric.measure(SemanticTruth(labels=scene.semantic), prediction)
