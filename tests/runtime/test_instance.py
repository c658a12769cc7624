import numpy as np
import pytest
import torch

from m2f.config import Postprocess
from m2f.runtime.instance import instance
from m2f.runtime.logits import Frame
from m2f.runtime.masks import box_of
from tests import tolerance
from tests.runtime import reference
from tests.runtime.cases import (
    differing,
    hf_cases,
    mmdet_case,
    official_cases,
    random_logits,
)


def named(cases):
    return [pytest.param(case, id=case.name) for case in cases]


def run(case, rules, library):
    found = instance(
        case.class_logits, case.mask_logits, case.frame, rules, case.is_thing, library
    )
    return found, np.argsort(-found.scores, kind="stable")


def check_official(case, name, found, order):
    scores = case.get(f"{name}_scores")
    assert np.abs(found.scores[order] - scores).max() <= tolerance.POSTPROCESS_SCORE
    assert np.array_equal(found.labels[order], case.get(f"{name}_classes"))
    assert np.array_equal(found.queries[order], case.get(f"{name}_query"))
    masks = found.masks.take(order).unpack()
    expected = case.masks(f"{name}_masks", len(scores))
    assert differing(masks, expected) <= tolerance.POSTPROCESS_PIXELS


@pytest.mark.parametrize("case", named(c for c in official_cases() if c.has("inst_scores")))
def test_official(case, library):
    rules = Postprocess(things_only=case.config["panoptic_on"])
    check_official(case, "inst", *run(case, rules, library))


def test_official_without_the_filter_of_things(library):
    case = official_cases()[0]
    check_official(case, "inst_nofilter", *run(case, Postprocess(things_only=False), library))


@pytest.mark.parametrize("case", named(hf_cases()))
def test_hf(case, library):
    found, _ = run(case, Postprocess(convention="hf"), library)
    golden = case.record["hf_instance"]
    kept = np.flatnonzero(found.scores >= golden["threshold"])
    infos = golden["segments_info"]
    assert found.labels[kept].tolist() == [info["label_id"] for info in infos]
    errors = np.abs(found.scores[kept] - [info["score"] for info in infos])
    assert errors.max() <= tolerance.POSTPROCESS_SCORE
    painted = np.full(case.frame.output, -1)
    for number, index in enumerate(kept):
        painted[found.masks[index]] = number
    assert differing(painted, case.get("hf_instance")) <= tolerance.POSTPROCESS_PIXELS


def test_mmdet(library):
    case = mmdet_case()
    found, order = run(case, Postprocess(convention="mmdet"), library)
    scores = case.get("inst_scores")
    assert np.abs(found.scores[order] - scores).max() <= tolerance.POSTPROCESS_SCORE
    assert np.array_equal(found.labels[order], case.get("inst_labels"))
    masks = found.masks.take(order).unpack()
    expected = case.masks("inst_masks", len(scores))
    assert differing(masks, expected) <= tolerance.POSTPROCESS_PIXELS
    boxes = np.array([box_of(mask) for mask in masks])
    boxes[:, 2:] += boxes[:, :2]
    assert np.array_equal(boxes, case.get("inst_bboxes"))


@pytest.mark.parametrize("output", [(90, 201), (23, 31), (1, 1)])
def test_random_logits_equal_torch(output, library):
    logits, masks = random_logits(5)
    frame = Frame(padded=(64, 96), valid=(51, 83), output=output)
    rules = Postprocess(top_k=30, things_only=False)
    found = instance(logits, masks, frame, rules, [True] * 7, library)
    scores, labels, inside = reference.instance(
        torch.from_numpy(logits), torch.from_numpy(masks), frame, top_k=30
    )
    assert np.array_equal(found.labels, labels)
    assert np.abs(found.scores - scores.numpy()).max() <= tolerance.POSTPROCESS_SCORE
    assert differing(found.masks.unpack(), inside.numpy()) <= tolerance.POSTPROCESS_PIXELS


def test_equal_scores_keep_the_order_of_queries(library):
    logits = np.zeros((5, 4), np.float32)
    masks = np.ones((5, 4, 4), np.float32)
    frame = Frame(padded=(16, 16), valid=(16, 16), output=(16, 16))
    rules = Postprocess(top_k=4, things_only=False)
    found = instance(logits, masks, frame, rules, [True] * 3, library)
    assert found.queries.tolist() == [0, 0, 0, 1]
    assert found.labels.tolist() == [0, 1, 2, 0]


@pytest.mark.parametrize("convention", ["official", "hf", "mmdet"])
def test_nothing_but_stuff_gives_no_instance(convention, library):
    logits, masks = random_logits(6)
    masks[:] = -5
    frame = Frame(padded=(64, 96), valid=(64, 96), output=(30, 40))
    rules = Postprocess(convention=convention)
    found = instance(logits, masks, frame, rules, [False] * 7, library)
    assert found.masks.unpack().shape == (0, 30, 40)
    assert len(found.scores) == 0
