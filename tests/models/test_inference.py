"""Logits to segments as the official code does it: full-size goldens and hand-made scenes."""

import dataclasses

import numpy as np
import pytest
import torch

from m2f.models import inference
from m2f.models.presets import preset
from tests import golden, tolerance

PRESETS = {
    "official_r50_coco_panoptic": "coco-panoptic-r50",
    "official_r101_cityscapes_panoptic": "cityscapes-panoptic-r101",
    "official_swin_t_ade20k_semantic": "ade20k-semantic-swin-t",
    "official_r50_coco_instance_batch2_pad": "coco-instance-r50",
}


def load(name):
    """Per image: class logits, mask logits [Q, H/4, W/4], sizes, and what is expected."""
    config, outputs = golden.load(name, "config.json"), golden.load(name, "golden.npz")
    for i, (valid, output) in enumerate(
        zip(config["image_sizes"], config["output_sizes"], strict=True)
    ):
        logits = (torch.from_numpy(outputs[key][i]) for key in ("pred_logits", "pred_masks"))
        sizes = (tuple(config["padded_size"]), tuple(valid), tuple(output))
        yield i, *logits, sizes


def differing(actual, expected):
    return (np.asarray(actual) != expected).mean()


@pytest.mark.parametrize(
    "name", ["official_r50_coco_panoptic", "official_r101_cityscapes_panoptic"]
)
@pytest.mark.parametrize("lax", [False, True])
def test_panoptic(name, lax):
    metadata = preset(PRESETS[name]).metadata
    stated = golden.load(name, "config.json")["postproc"]
    expected = golden.load(name, "postproc.npz")
    if lax:
        rules = dataclasses.replace(metadata.postprocess, overlap_threshold=0.1)
        metadata = dataclasses.replace(metadata, postprocess=rules)
    for i, classes, masks, sizes in load(name):
        ids, segments = inference.panoptic(
            classes, inference.full_size_masks(masks, *sizes), metadata
        )
        known = stated[i]["lax_segments_info" if lax else "segments_info"]
        assert [(s.id, s.is_thing, s.category) for s in segments] == [
            (s["id"], s["isthing"], s["category_id"]) for s in known
        ]
        map_name = f"panoptic_{'lax_' if lax else ''}seg_{i}"
        assert differing(ids, expected[map_name]) <= tolerance.POSTPROCESS_PIXELS


def ranked(scores, categories, queries):
    """Best first; empty masks all score 0, and sorting leaves their order open."""
    return np.lexsort((np.asarray(categories), np.asarray(queries), -np.asarray(scores)))


@pytest.mark.parametrize(
    "name", ["official_r50_coco_instance_batch2_pad", "official_r50_coco_panoptic"]
)
def test_instance(name):
    metadata = preset(PRESETS[name]).metadata
    expected = golden.load(name, "postproc.npz")
    for i, classes, masks, sizes in load(name):
        found = inference.instance(classes, inference.full_size_masks(masks, *sizes), metadata)
        bits = np.unpackbits(expected[f"inst_masks_{i}"])[: found.masks.numel()]
        named = ("scores", "classes", "query")
        scores, categories, queries = (expected[f"inst_{name}_{i}"] for name in named)
        ours = ranked(found.scores, found.categories, found.queries)
        theirs = ranked(scores, categories, queries)
        assert np.abs(found.scores[ours].numpy() - scores[theirs]).max() <= (
            tolerance.POSTPROCESS_SCORE
        )
        assert (found.categories[ours].numpy() == categories[theirs]).all()
        assert (found.queries[ours].numpy() == queries[theirs]).all()
        masks = bits.reshape(found.masks.shape)[theirs]
        assert differing(found.masks[ours], masks) <= tolerance.POSTPROCESS_PIXELS


def test_semantic_resizes_masks_first_for_panoptic_models():
    for i, classes, masks, sizes in load("official_r50_coco_panoptic"):
        scores = inference.semantic(classes, inference.full_size_masks(masks, *sizes))
        expected = golden.load("official_r50_coco_panoptic", "postproc.npz")[f"sem_argmax_{i}"]
        assert differing(scores.argmax(0), expected) <= tolerance.POSTPROCESS_PIXELS


def test_semantic_resizes_scores_last_for_semantic_models():
    for i, classes, masks, (padded, valid, output) in load("official_swin_t_ade20k_semantic"):
        scores = inference.semantic(
            classes, inference.full_size_masks(masks, padded, padded, padded)
        )
        scores = inference.cropped_and_resized(scores, valid, output)
        expected = golden.load("official_swin_t_ade20k_semantic", "postproc.npz")
        expected = expected[f"sem_argmax_{i}"]
        assert differing(scores.argmax(0), expected) <= tolerance.POSTPROCESS_PIXELS


def test_hand_made_segments_without_any_resizing_are_exact():
    """Merged stuff, a duplicate, a tiny loser, a mask that never reaches one half."""
    inputs = golden.load("postproc_handmade", "input.npz")
    metadata = preset("coco-panoptic-r50").metadata
    things = golden.load("postproc_handmade", "config.json")["exact_segments_info"]
    ids, segments = inference.panoptic(
        torch.from_numpy(inputs["exact_logits"]),
        torch.from_numpy(inputs["exact_masks"]),
        metadata,
    )
    expected = golden.load("postproc_handmade", "official.npz")["exact_panoptic_seg"]
    assert (ids.numpy() == expected).all()
    assert [(s.id, s.is_thing, s.category) for s in segments] == [
        (s["id"], s["isthing"], s["category_id"]) for s in things
    ]


def test_nothing_found_is_an_empty_map():
    metadata = preset("coco-panoptic-r50").metadata
    ids, segments = inference.panoptic(torch.zeros(9, 134), torch.zeros(9, 20, 20), metadata)
    assert not ids.any()
    assert segments == []
