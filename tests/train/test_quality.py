"""Panoptic quality on maps small enough to count by hand."""

import numpy as np
import pytest

from m2f.train.quality import PanopticQuality


def quality(found, found_classes, true, true_classes, classes=2):
    counts = PanopticQuality(classes)
    counts.add(np.array(found), found_classes, np.array(true), true_classes)
    return counts


def test_a_perfect_answer_is_one():
    ids = [[1, 1, 2], [1, 2, 2]]
    counts = quality(ids, {1: 0, 2: 1}, ids, {1: 0, 2: 1})
    assert counts.mean([0, 1]) == (1.0, 1.0, 1.0)


def test_segment_numbers_do_not_matter_but_classes_do():
    true = [[1, 1, 2, 2]]
    counts = quality([[7, 7, 4, 4]], {7: 0, 4: 0}, true, {1: 0, 2: 1})
    assert counts.of_class(0) == pytest.approx((1 / 1.5, 1.0, 1 / 1.5))  # 1 hit, 1 false
    assert counts.of_class(1) == (0.0, 0.0, 0.0)  # missed


def test_iou_of_one_half_does_not_match():
    counts = quality([[1, 1, 1, 1]], {1: 0}, [[1, 1, 2, 2]], {1: 0, 2: 1})
    assert counts.hits.tolist() == [0, 0]
    assert counts.false.tolist() == [1, 0]
    assert counts.missed.tolist() == [1, 1]


def test_void_is_left_out_of_the_union():
    # Found 6 pixels: 3 true ones, 3 void. With void the IoU were 3/6, without it is 1.
    counts = quality([[1] * 6], {1: 0}, [[1, 1, 1, 0, 0, 0]], {1: 0})
    assert counts.of_class(0) == (1.0, 1.0, 1.0)


def test_a_find_that_is_mostly_void_is_not_false():
    true = [[1, 1, 1, 0, 0, 0, 0]]
    counts = quality([[1, 1, 2, 2, 2, 2, 0]], {1: 0, 2: 1}, true, {1: 0})
    assert counts.false.tolist() == [0, 0]
    assert counts.of_class(0) == pytest.approx((2 / 3, 2 / 3, 1.0))
    assert counts.of_class(1) is None


def test_counts_add_up_over_images():
    counts = PanopticQuality(1)
    for found in ([[1, 1, 1, 1]], [[0, 1, 1, 1]], [[0, 0, 0, 0]]):
        classes = {1: 0} if np.any(found) else {}
        counts.add(np.array(found), classes, np.ones((1, 4), int), {1: 0})
    assert counts.of_class(0) == pytest.approx(((1 + 0.75) / 2.5, 0.875, 2 / 2.5))


def test_mean_is_over_classes_that_occurred():
    ids = [[1, 1]]
    counts = quality(ids, {1: 0}, ids, {1: 0}, classes=3)
    assert counts.mean([0, 1, 2]).pq == 1.0
    assert counts.mean([1, 2]) == (0.0, 0.0, 0.0)
