import numpy as np
import pytest
import torch

from m2f.config import Postprocess
from m2f.runtime.logits import Frame
from m2f.runtime.panoptic import panoptic
from tests import tolerance
from tests.golden import load
from tests.runtime import reference
from tests.runtime.cases import (
    differing,
    exact_case,
    hf_cases,
    mmdet_case,
    official_cases,
    random_logits,
)


def named(cases):
    return [pytest.param(case, id=case.name) for case in cases]


def run(case, rules, library):
    inputs = case.class_logits, case.mask_logits, case.frame
    return panoptic(*inputs, rules, case.is_thing, library)


def infos_of(found, is_thing):
    """One record per segment, as the official code lists them."""
    first = {}
    for one in found.accepted:
        first.setdefault(one.segment, one.label)
    return [{"id": i, "isthing": is_thing[k], "category_id": k} for i, k in first.items()]


@pytest.mark.parametrize("case", named(c for c in official_cases() if c.has("panoptic_seg")))
@pytest.mark.parametrize("lax", [False, True])
def test_official(case, lax, library):
    prefix = "lax_" if lax else ""
    overlap = case.record["lax_overlap_threshold"] if lax else 0.8
    found = run(case, Postprocess(overlap_threshold=overlap), library)
    assert infos_of(found, case.is_thing) == case.record[f"{prefix}segments_info"]
    golden = case.get(f"panoptic_{prefix}seg")
    assert differing(found.segment_ids, golden) <= tolerance.POSTPROCESS_PIXELS


def test_exact_case_has_no_pixel_wrong(library):
    case = exact_case()
    found = run(case, Postprocess(), library)
    golden = load("postproc_handmade", "official.npz")["exact_panoptic_seg"]
    infos = load("postproc_handmade", "config.json")["exact_segments_info"]
    assert np.array_equal(found.segment_ids, golden)
    assert infos_of(found, case.is_thing) == infos


def test_mmdet(library):
    case, golden = mmdet_case(), load("postproc_handmade", "mmdet_postproc.npz")
    rules = Postprocess(convention="mmdet")
    ids = run(case, rules, library).ids_of_mmdet(case.is_thing)
    assert differing(ids, golden["panoptic_0"]) <= tolerance.POSTPROCESS_PIXELS
    ids = run(exact_case(), rules, library).ids_of_mmdet(case.is_thing)
    assert np.array_equal(ids, golden["exact_panoptic"])


def check_hf(case, name, rules, fused, library):
    golden = case.record[name]["segments_info"]
    found = run(case, rules, library)
    ids, numbers = found.ids_of_hf(fused)
    assert numbers == [info["id"] for info in golden]
    assert [a.label for a in found.accepted] == [info["label_id"] for info in golden]
    assert [fused[a.label] for a in found.accepted] == [info["was_fused"] for info in golden]
    errors = [abs(a.score - i["score"]) for a, i in zip(found.accepted, golden, strict=True)]
    assert max(errors, default=0) <= tolerance.POSTPROCESS_SCORE
    assert differing(ids, case.get(name)) <= tolerance.POSTPROCESS_PIXELS


@pytest.mark.parametrize("case", named(hf_cases()))
@pytest.mark.parametrize("name", ["hf_panoptic", "hf_panoptic_lax"])
def test_hf(case, name, library):
    golden = case.record[name]
    rules = Postprocess(
        convention="hf",
        object_mask_threshold=golden["threshold"],
        mask_threshold=golden["mask_threshold"],
        overlap_threshold=golden["overlap_mask_area_threshold"],
    )
    check_hf(case, name, rules, [not thing for thing in case.is_thing], library)


def test_hf_with_its_default_threshold(library):
    case = hf_cases()[0]
    rules = Postprocess(convention="hf", object_mask_threshold=0.5)
    check_hf(
        case, "hf_panoptic_default", rules, [not thing for thing in case.is_thing], library
    )


def test_hf_without_merging(library):
    case = hf_cases()[0]
    rules = Postprocess(convention="hf", object_mask_threshold=0.5, fuse_stuff=False)
    check_hf(case, "hf_panoptic_nofuse", rules, [False] * len(case.is_thing), library)


@pytest.mark.parametrize("output", [(90, 201), (23, 31), (1, 1)])
@pytest.mark.parametrize("fuse", [True, False])
@pytest.mark.parametrize("seed", range(4))
def test_random_logits_equal_torch(output, fuse, seed, library):
    logits, masks = random_logits(seed)
    is_thing = [k < 3 for k in range(7)]
    frame = Frame(padded=(64, 96), valid=(51, 83), output=output)
    rules = Postprocess(object_mask_threshold=0.4, overlap_threshold=0.3, fuse_stuff=fuse)
    found = panoptic(logits, masks, frame, rules, is_thing, library)
    ids, segments = reference.panoptic(
        torch.from_numpy(logits),
        torch.from_numpy(masks),
        frame,
        is_thing,
        keep=0.4,
        overlap=0.3,
        fuse=fuse,
    )
    assert [(i["id"], i["category_id"]) for i in infos_of(found, is_thing)] == segments
    assert differing(found.segment_ids, ids.numpy()) <= tolerance.POSTPROCESS_PIXELS


@pytest.mark.parametrize("convention", ["official", "hf", "mmdet"])
def test_no_confident_query_gives_an_empty_map(convention, library):
    logits, masks = random_logits(1)
    logits[:] = 0
    frame = Frame(padded=(64, 96), valid=(64, 96), output=(30, 40))
    rules = Postprocess(convention=convention)
    found = panoptic(logits, masks, frame, rules, [True] * 7, library)
    assert found.segment_ids.shape == (30, 40)
    assert not found.segment_ids.any()
    assert found.accepted == ()
    assert (found.ids_of_hf([False] * 7)[0] == -1).all()
