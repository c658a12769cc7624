import dataclasses
import json
from collections import Counter

import pytest

from m2f.config import Metadata, ModelConfig, SwinConfig, config_from_json, json_from_config
from m2f.errors import UsageError
from m2f.models.presets import PRESETS, matching, preset

# Rows of the tables in the official MODEL_ZOO.md.
ZOO = {
    ("coco", "panoptic"): 7,
    ("coco", "instance"): 7,
    ("ade20k", "panoptic"): 2,
    ("ade20k", "instance"): 2,
    ("ade20k", "semantic"): 7,
    ("cityscapes", "panoptic"): 6,
    ("cityscapes", "instance"): 6,
    ("cityscapes", "semantic"): 6,
    ("mapillary", "panoptic"): 2,
    ("mapillary", "semantic"): 2,
}

# From MODEL_ZOO.md and the configs, by hand: queries, test size, results.
SPOT = {
    "coco-panoptic-r50": (100, (800, 1333), {"PQ": 51.9, "AP": 41.7, "mIoU": 61.7}),
    "coco-panoptic-swin-l-in21k": (200, (800, 1333), {"PQ": 57.8, "AP": 48.6, "mIoU": 67.4}),
    "coco-instance-swin-b-in21k": (100, (800, 1333), {"AP": 48.1, "Boundary AP": 34.4}),
    "ade20k-panoptic-swin-l-in21k": (
        200,
        (640, 2560),
        {"PQ": 48.1, "AP": 34.2, "mIoU": 54.5},
    ),
    "ade20k-instance-r50": (100, (640, 2560), {"AP": 26.4}),
    "ade20k-semantic-swin-s": (100, (512, 2048), {"mIoU": 51.3, "mIoU (ms+flip)": 52.4}),
    "ade20k-semantic-swin-l-in21k": (
        100,
        (640, 2560),
        {"mIoU": 56.1, "mIoU (ms+flip)": 57.3},
    ),
    "cityscapes-instance-swin-l-in21k": (200, (1024, 2048), {"AP": 43.7, "AP50": 71.4}),
    "mapillary-panoptic-swin-l-in21k": (200, (2048, 2048), {"PQ": 45.5, "mIoU": 60.8}),
}

# From the golden fixtures' config.json: classes, queries, decoder layers, thing classes,
# tasks switched on, semantic result after the resize, object mask threshold.
GOLDEN = {
    "coco-panoptic-r50": (133, 100, 9, range(80), {"panoptic", "instance", "semantic"}, True),
    "coco-instance-r50": (80, 100, 9, range(80), {"instance"}, True),
    "cityscapes-panoptic-r101": (
        19,
        100,
        9,
        range(11, 19),
        {"panoptic", "instance", "semantic"},
        True,
    ),
    "ade20k-semantic-swin-t": (150, 100, 9, None, {"semantic"}, False),
    "coco-panoptic-swin-t": (
        133,
        100,
        9,
        range(80),
        {"panoptic", "instance", "semantic"},
        True,
    ),
}


def test_every_row_of_the_zoo_has_a_preset():
    assert Counter((p.dataset, p.metadata.task) for p in PRESETS.values()) == ZOO


def test_names_follow_the_scheme():
    for name, p in PRESETS.items():
        assert name == p.name
        assert name.startswith(f"{p.dataset}-{p.metadata.task}-")


def test_files_are_distinct():
    assert len({p.url for p in PRESETS.values()}) == len(PRESETS)
    assert len({p.config for p in PRESETS.values()}) == len(PRESETS)
    hub_ids = [p.hub_id for p in PRESETS.values() if p.hub_id]
    assert len(set(hub_ids)) == len(hub_ids)


@pytest.mark.parametrize("p", PRESETS.values(), ids=PRESETS)
def test_preset_is_consistent(p):
    assert p.model.classes == len(p.metadata.categories)
    assert p.metadata.task in p.metadata.tasks
    assert p.hub_id is None or isinstance(p.model.backbone, SwinConfig)
    assert p.model.pixel_decoder.kind == "msdeform"
    assert p in matching(p.model)
    assert p in matching(p.model, p.metadata.task)


@pytest.mark.parametrize("p", PRESETS.values(), ids=PRESETS)
def test_preset_survives_json(p):
    for kind, value in ((ModelConfig, p.model), (Metadata, p.metadata)):
        assert config_from_json(kind, json.loads(json.dumps(json_from_config(value)))) == value


@pytest.mark.parametrize("name", SPOT)
def test_spot_values(name):
    queries, size, metrics = SPOT[name]
    p = preset(name)
    assert p.model.transformer_decoder.queries == queries
    assert (p.metadata.preprocess.min_size, p.metadata.preprocess.max_size) == size
    assert dict(p.metrics) == metrics


@pytest.mark.parametrize("name", GOLDEN)
def test_golden_fixtures_agree(name):
    classes, queries, layers, things, tasks, after_resize = GOLDEN[name]
    p = preset(name)
    decoder = p.model.transformer_decoder
    assert (p.model.classes, decoder.queries, decoder.layers) == (classes, queries, layers)
    assert set(p.metadata.tasks) == tasks
    post = p.metadata.postprocess
    assert post.semantic_after_resize is after_resize
    assert (post.object_mask_threshold, post.overlap_threshold, post.top_k) == (0.8, 0.8, 100)
    if things is not None:
        ids = [i for i, c in enumerate(p.metadata.categories) if c.is_thing]
        assert ids == list(things)


def test_mapillary_keeps_every_query_and_has_no_instances():
    for name in ("mapillary-panoptic-r50", "mapillary-panoptic-swin-l-in21k"):
        metadata = preset(name).metadata
        assert metadata.postprocess.object_mask_threshold == 0.0
        assert metadata.tasks == ("panoptic", "semantic")


def test_backbones():
    assert preset("coco-panoptic-r50").model.backbone.blocks == (3, 4, 6, 3)
    assert preset("coco-panoptic-r101").model.backbone.blocks == (3, 4, 23, 3)
    names = {"t": "Swin-T", "s": "Swin-S", "b": "Swin-B", "b-in21k": "Swin-B"}
    for letter, name in names.items():
        swin = preset(f"coco-panoptic-swin-{letter}").model.backbone
        assert swin.name == name
        assert (swin.window, swin.pretrain_size) == (
            (12, 384) if name == "Swin-B" else (7, 224)
        )
    swin = preset("ade20k-instance-swin-l-in21k").model.backbone
    assert (swin.name, swin.window, swin.pretrain_size) == ("Swin-L", 12, 384)
    assert swin.heads == (6, 12, 24, 48)


def test_files_of_spot_presets():
    p = preset("coco-panoptic-swin-t")
    assert p.config == "coco/panoptic-segmentation/swin/maskformer2_swin_tiny_bs16_50ep.yaml"
    assert p.url.endswith(
        "/coco/panoptic/maskformer2_swin_tiny_bs16_50ep/model_final_9fd0ae.pkl"
    )
    assert p.hub_id == "facebook/mask2former-swin-tiny-coco-panoptic"
    p = preset("mapillary-semantic-r50")
    assert p.config.endswith("semantic-segmentation/maskformer2_R50_bs16_300k.yaml")
    assert p.url.endswith("vistas/semantic/maskformer_R50_bs16_300k/model_final_6c66d0.pkl")
    assert p.hub_id is None


def test_a_misspelt_name_is_answered_with_the_closest():
    with pytest.raises(UsageError, match=r"coco-panoptc-r50.*coco-panoptic-r50"):
        preset("coco-panoptc-r50")


def test_matching_ignores_only_what_weights_cannot_show():
    model = preset("ade20k-semantic-swin-b").model
    as_read = dataclasses.replace(
        model, backbone=dataclasses.replace(model.backbone, pretrain_size=224)
    )
    names = [p.name for p in matching(as_read)]
    assert names == ["ade20k-semantic-swin-b", "ade20k-semantic-swin-b-in21k"]
    other = dataclasses.replace(model, backbone=dataclasses.replace(model.backbone, window=7))
    assert matching(other) == []


def test_matching_can_be_narrowed_to_a_task():
    model = preset("cityscapes-panoptic-r50").model
    both = ["cityscapes-panoptic-r50", "cityscapes-semantic-r50"]
    assert [p.name for p in matching(model)] == both
    assert [p.name for p in matching(model, "semantic")] == both[1:]
    assert matching(model, "instance") == []
