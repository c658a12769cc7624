import numpy as np
import pytest
import torch

from m2f.config import Postprocess
from m2f.runtime.logits import Frame
from m2f.runtime.semantic import semantic, semantic_scores
from tests import tolerance
from tests.runtime import reference
from tests.runtime.cases import differing, hf_cases, official_cases, random_logits


def named(cases):
    return [pytest.param(case, id=case.name) for case in cases]


def scores_of(case, rules):
    blocks = semantic_scores(case.class_logits, case.mask_logits, case.frame, rules)
    return np.concatenate([scores for _, scores in blocks], axis=1)


@pytest.mark.parametrize("case", named(c for c in official_cases() if c.has("sem_argmax")))
def test_official(case, library):
    rules = Postprocess(
        semantic_after_resize=case.config["sem_seg_postprocess_before_inference"]
    )
    labels = semantic(case.class_logits, case.mask_logits, case.frame, rules, library)
    assert differing(labels, case.get("sem_argmax")) <= tolerance.POSTPROCESS_PIXELS
    error = np.abs(scores_of(case, rules)[:, ::8, ::8] - case.get("sem_seg_s8"))
    assert error.max() <= tolerance.SEMANTIC_SCORE


def test_official_sums_before_the_resize(library):
    case = official_cases()[0]
    rules = Postprocess(semantic_after_resize=False)
    labels = semantic(case.class_logits, case.mask_logits, case.frame, rules, library)
    assert differing(labels, case.get("sem_argmax_after")) <= tolerance.POSTPROCESS_PIXELS
    error = np.abs(scores_of(case, rules)[:, ::8, ::8] - case.get("sem_seg_after_s8"))
    assert error.max() <= tolerance.SEMANTIC_SCORE


@pytest.mark.parametrize("case", named(hf_cases()))
def test_hf(case, library):
    rules = Postprocess(convention="hf")
    labels = semantic(case.class_logits, case.mask_logits, case.frame, rules, library)
    assert differing(labels, case.get("hf_semantic")) <= tolerance.POSTPROCESS_PIXELS
    square = Frame(padded=case.frame.padded, valid=case.frame.valid, output=(384, 384))
    labels = semantic(case.class_logits, case.mask_logits, square, rules, library)
    assert differing(labels, case.get("hf_semantic_384")) <= tolerance.POSTPROCESS_PIXELS


@pytest.mark.parametrize("after_resize", [True, False])
@pytest.mark.parametrize("output", [(90, 201), (23, 31), (1, 1)])
def test_random_logits_equal_torch(after_resize, output, library):
    logits, masks = random_logits(3)
    frame = Frame(padded=(64, 96), valid=(51, 83), output=output)
    rules = Postprocess(semantic_after_resize=after_resize)
    labels = semantic(logits, masks, frame, rules, library)
    expected = reference.semantic(
        torch.from_numpy(logits), torch.from_numpy(masks), frame, after_resize=after_resize
    )
    assert differing(labels, expected.argmax(0).numpy()) <= tolerance.POSTPROCESS_PIXELS


def test_the_hf_convention_sees_only_the_valid_part(library):
    """In a padded batch an image gets what it gets alone (transformers squashes it)."""
    logits, masks = random_logits(4)
    rules = Postprocess(convention="hf")
    alone = Frame(padded=(64, 64), valid=(64, 64), output=(80, 90))
    padded = Frame(padded=(64, 96), valid=(64, 64), output=(80, 90))
    cut = np.ascontiguousarray(masks[:, :, :16])
    assert np.array_equal(
        semantic(logits, masks, padded, rules, library),
        semantic(logits, cut, alone, rules, library),
    )
