import json

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco

from m2f.config import Category, Postprocess
from m2f.errors import DiskError, MissingDependency, ShapeError, UsageError
from m2f.runtime.logits import Frame
from m2f.runtime.masks import PackedMasks, box_of
from m2f.runtime.postprocess import segment
from tests.runtime.cases import random_logits

CATEGORIES = tuple(
    Category(id=5 * k + 3, name=f"class {k}", colour=(40 * k, 255 - 30 * k, 90), is_thing=k < 4)
    for k in range(7)
)
SIZE = (90, 201)


def predict(task, *, categories=CATEGORIES, seed=1, **changes):
    logits, masks = random_logits(seed, classes=len(categories))
    rules = Postprocess(object_mask_threshold=0.3, overlap_threshold=0.2, **changes)
    frame = Frame(padded=(64, 96), valid=(51, 83), output=SIZE)
    return segment(logits, masks, frame, task=task, rules=rules, categories=categories)


@pytest.fixture(scope="module", params=["panoptic", "instance", "semantic"])
def prediction(request):
    return predict(request.param)


@pytest.fixture(scope="module")
def panoptic():
    return predict("panoptic")


def test_segments_describe_their_masks(prediction):
    assert len(prediction) == len(prediction.segments) > 2
    assert prediction.masks.shape == (len(prediction), *SIZE)
    for i, s in enumerate(prediction.segments):
        mask = prediction.masks[i]
        assert np.array_equal(mask, prediction.mask(i))
        assert s.area == mask.sum()
        assert s.box == box_of(mask)
        assert s.name == CATEGORIES[s.label].name
        assert s.is_thing == CATEGORIES[s.label].is_thing
    assert prediction.labels.tolist() == [s.label for s in prediction.segments]


def test_instances_come_by_descending_score():
    scores = predict("instance").scores
    assert (np.diff(scores) <= 0).all()


def test_panoptic_segments_do_not_overlap_and_stuff_is_merged(panoptic):
    assert panoptic.masks.sum(0).max() == 1
    stuff = [s.label for s in panoptic.segments if not s.is_thing]
    assert len(stuff) == len(set(stuff)) > 0


def test_maps_exist_only_where_they_mean_something():
    instance, semantic = predict("instance"), predict("semantic")
    with pytest.raises(UsageError, match="an instance prediction has no segment ids"):
        _ = instance.segment_ids
    with pytest.raises(UsageError, match="an instance prediction has no label map"):
        _ = instance.label_map
    with pytest.raises(UsageError, match="a semantic prediction has no segment ids"):
        _ = semantic.segment_ids
    with pytest.raises(UsageError, match="a semantic prediction has no scores"):
        semantic.above(0.5)


def test_panoptic_label_map(panoptic):
    expected = np.full(SIZE, -1)
    for s, mask in zip(panoptic.segments, panoptic.masks, strict=True):
        expected[mask] = s.label
    assert (expected == -1).any()
    assert np.array_equal(panoptic.label_map, expected)


@pytest.mark.parametrize("task", ["panoptic", "instance"])
def test_above_keeps_the_better_segments(task):
    all_of_them = predict(task)
    limit = float(np.sort(all_of_them.scores)[len(all_of_them) // 2])
    some = all_of_them.above(limit)
    kept = all_of_them.scores >= limit
    assert 0 < len(some) < len(all_of_them)
    assert np.array_equal(some.masks, all_of_them.masks[kept])
    assert some.scores.min() >= limit


def test_coco_rle_decodes_to_the_masks(prediction):
    results = json.loads(json.dumps(prediction.to_coco_rle(image_id=42)))
    assert len(results) == len(prediction)
    for result, s, mask in zip(results, prediction.segments, prediction.masks, strict=True):
        assert np.array_equal(coco.decode(result["segmentation"]), mask)
        assert result["category_id"] == CATEGORIES[s.label].id
        assert result["image_id"] == 42
        assert result["bbox"] == list(s.box)
        assert result.get("score") == s.score


def test_panoptic_png_decodes_to_the_ids(panoptic, tmp_path):
    entry = json.loads(json.dumps(panoptic.save_panoptic(tmp_path / "new", 139)))
    assert entry["file_name"] == "000000000139.png"
    rgb = np.asarray(Image.open(tmp_path / "new" / entry["file_name"])).astype(int)
    ids = rgb[:, :, 0] + 256 * rgb[:, :, 1] + 256**2 * rgb[:, :, 2]
    assert np.array_equal(ids, panoptic.segment_ids)
    assert {info["id"] for info in entry["segments_info"]} == set(np.unique(ids)) - {0}
    for info in entry["segments_info"]:
        assert info["area"] == (ids == info["id"]).sum()
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["000000000139.png"]


def test_large_ids_use_all_three_channels(panoptic, tmp_path):
    from dataclasses import replace

    ids = panoptic.segment_ids * 70001
    replace(panoptic, map_=ids).save_panoptic(tmp_path, "a", stem="b")
    rgb = np.asarray(Image.open(tmp_path / "b.png")).astype(int)
    assert np.array_equal(rgb @ [1, 256, 256**2], ids)


@pytest.mark.parametrize(("factor", "mode"), [(1, "L"), (100, "I;16")])
@pytest.mark.parametrize("task", ["semantic", "panoptic"])
def test_semantic_png_holds_category_ids(tmp_path, task, factor, mode):
    categories = tuple(
        Category(id=c.id * factor, name=c.name, colour=c.colour, is_thing=c.is_thing)
        for c in CATEGORIES
    )
    prediction = predict(task, categories=categories)
    prediction.save_semantic(tmp_path / "a.png", void=0)
    image = Image.open(tmp_path / "a.png")
    assert image.mode == mode
    table = np.array([c.id for c in categories] + [0])
    assert np.array_equal(np.asarray(image), table[prediction.label_map])


def test_semantic_png_marks_pixels_without_a_segment(panoptic, tmp_path):
    panoptic.save_semantic(tmp_path / "a.png")
    pixels = np.asarray(Image.open(tmp_path / "a.png"))
    assert np.array_equal(pixels == 255, panoptic.label_map == -1)


def test_ids_too_large_for_a_png(tmp_path):
    categories = (
        *CATEGORIES[:6],
        Category(id=65536, name="far", colour=(1, 2, 3), is_thing=True),
    )
    prediction = predict("semantic", categories=categories)
    with pytest.raises(UsageError, match=r"from 3 to 65536, a PNG holds 0\.\.65535"):
        prediction.save_semantic(tmp_path / "a.png")


def test_a_place_that_cannot_be_written(panoptic, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(DiskError, match="cannot be written"):
        panoptic.save_panoptic(tmp_path / "file", 1)


def test_json_summary(prediction):
    summary = json.loads(json.dumps(prediction.to_json(), allow_nan=False))
    assert summary["size"] == list(SIZE)
    assert [s["area"] for s in summary["segments"]] == [s.area for s in prediction.segments]


def test_supervision(prediction):
    pytest.importorskip("supervision", reason="the supervision extra is not installed")
    detections = prediction.to_supervision()
    assert len(detections) == len(prediction)
    assert np.array_equal(detections.mask, prediction.masks)
    assert np.array_equal(detections.class_id, prediction.labels)
    assert list(detections["class_name"]) == [s.name for s in prediction.segments]
    if prediction.task == "semantic":
        assert detections.confidence is None
    else:
        assert np.array_equal(detections.confidence, prediction.scores)
    x, y, w, h = prediction.segments[0].box
    assert detections.xyxy[0].tolist() == [x, y, x + w, y + h]


def test_supervisions_own_tools_take_them():
    sv = pytest.importorskip("supervision", reason="the supervision extra is not installed")
    scene = np.zeros((*SIZE, 3), np.uint8)
    detections = predict("instance").to_supervision()
    detections = detections[detections.confidence > 0.2]
    assert len(detections)
    assert sv.MaskAnnotator().annotate(scene.copy(), detections).any()
    zone = sv.PolygonZone(np.array([[0, 0], [200, 0], [200, 89], [0, 89]]))
    assert zone.trigger(detections).shape == (len(detections),)
    empty = predict("instance").above(2.0).to_supervision()
    assert len(empty) == 0
    assert not sv.MaskAnnotator().annotate(scene.copy(), empty).any()


def test_supervision_missing(monkeypatch, panoptic):
    monkeypatch.setitem(__import__("sys").modules, "supervision", None)
    with pytest.raises(MissingDependency, match=r"pip install 'm2f-deploy\[supervision\]'"):
        panoptic.to_supervision()


def test_overlay_changes_segments_only(panoptic):
    image = np.full((*SIZE, 3), 128, np.uint8)
    drawn = np.asarray(panoptic.overlay(image, labels=False))
    changed = (drawn != 128).any(axis=2)
    assert not changed[panoptic.segment_ids == 0].any()
    assert changed[panoptic.segment_ids > 0].mean() > 0.99
    assert (image == 128).all()


def test_overlay_mixes_the_categorys_colour():
    prediction = predict("semantic")
    image = np.full((*SIZE, 3), 100, np.uint8)
    drawn = np.asarray(prediction.overlay(image, alpha=0.25, labels=False)).astype(int)
    colours = np.array([c.colour for c in CATEGORIES])[prediction.label_map]
    inner = np.abs(drawn - (75 + 0.25 * colours)).max(axis=2) <= 1
    assert inner.mean() > 0.8  # the rest are outlines


def test_overlay_tells_instances_of_one_class_apart(panoptic):
    things = [s for s in panoptic.segments if s.is_thing]
    same = [s for s in things if [t.label for t in things].count(s.label) > 1]
    assert len(same) >= 2
    drawn = np.asarray(panoptic.overlay(np.zeros((*SIZE, 3), "u1"), alpha=1, labels=False))
    colours = set()
    for s in same:
        inside, counts = np.unique(
            drawn[panoptic.segment_ids == s.id], axis=0, return_counts=True
        )
        colours.add(tuple(inside[counts.argmax()]))
    assert len(colours) == len(same)


def test_overlay_writes_labels_and_boxes(prediction):
    image = np.full((*SIZE, 3), 128, np.uint8)
    plain = np.asarray(prediction.overlay(image, labels=False, min_score=0))
    labelled = np.asarray(prediction.overlay(image, min_score=0))
    assert (plain != labelled).any()
    boxed = np.asarray(prediction.overlay(image, labels=False, boxes=True, min_score=0))
    assert (plain != boxed).any()


def test_overlay_leaves_out_weak_instances():
    prediction = predict("instance")
    image = np.full((*SIZE, 3), 128, np.uint8)
    assert (np.asarray(prediction.overlay(image, min_score=2.0)) == 128).all()


def test_overlay_of_another_image_is_refused(panoptic):
    with pytest.raises(ShapeError, match="is 10x10, the prediction is of one of 90x201"):
        panoptic.overlay(np.zeros((10, 10, 3), np.uint8))
    with pytest.raises(UsageError, match="alpha must be from 0 to 1"):
        panoptic.overlay(np.zeros((*SIZE, 3), np.uint8), alpha=1.5)


@pytest.mark.parametrize("width", [1, 7, 8, 9])
def test_packed_masks_keep_every_width(width):
    masks = np.random.default_rng(width).random((3, 4, width)) > 0.5
    packed = PackedMasks(np.packbits(masks, axis=2), np.array([2, 0, 2]), width)
    assert np.array_equal(packed.unpack(), masks[[2, 0, 2]])
    assert np.array_equal(packed.take(np.array([1])).unpack(), masks[:1])
