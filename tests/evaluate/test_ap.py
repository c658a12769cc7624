"""AP against COCOeval over all images at once, boundary AP against two implementations."""

import contextlib
import io
import json

import numpy as np
import pytest
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from m2f.evaluate import evaluate, open_data
from m2f.evaluate.ap import AveragePrecision
from m2f.evaluate.mapping import Matching, match
from m2f.evaluate.truth import InstanceTruth
from tests.evaluate.made import (
    CATEGORIES,
    Oracle,
    Scene,
    edit,
    instance_prediction,
    write_scenes,
)
from tests.evaluate.test_boundary import by_erosion

NAMES = ["AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl"]


@pytest.fixture(scope="module")
def scenes():
    """Small, medium and large objects; one image with more detections than COCO takes."""
    scenes = [Scene(seed, (240, 320)) for seed in range(200, 207)]
    scenes += [Scene(seed) for seed in range(207, 210)]
    crowded = scenes[0]
    rng = np.random.default_rng(0)
    crowded.found += [(0, float(rng.uniform(0, 0.3)), m) for _, _, m in crowded.found * 30]
    assert len(crowded.found) > 100
    return scenes


@pytest.fixture(scope="module")
def data(tmp_path_factory, scenes):
    folder = tmp_path_factory.mktemp("ap") / "set"
    write_scenes(folder, scenes)
    return folder


@pytest.fixture(scope="module")
def results(tmp_path_factory, scenes):
    """All detections as a COCO results file."""
    found = [
        entry
        for number, scene in enumerate(scenes, 1)
        for entry in scene.predict("instance").to_coco_rle(number)
    ]
    # With a box, loadRes takes the box's area for the object's; detectron2 drops it, too.
    for entry in found:
        del entry["bbox"]
    path = tmp_path_factory.mktemp("results") / "results.json"
    path.write_text(json.dumps(found))
    return path


def stats(evaluation):
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return [None if v < 0 else 100 * v for v in evaluation.stats[:12]]


def loaded(data, results):
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(data / "instances.json"))
        return truth, truth.loadRes(str(results))


class BoundaryEval(COCOeval):
    """min(mask IoU, boundary IoU), as boundary-iou-api's COCOeval."""

    def computeIoU(self, image, category):
        masks = super().computeIoU(image, category)
        if not len(masks):
            return masks
        kept = self._gts[image, category], self._dts[image, category]
        for entries in kept:
            for entry in entries:
                entry["whole"] = entry["segmentation"]
                rim = by_erosion(coco_mask.decode(entry["whole"]) > 0)
                entry["segmentation"] = coco_mask.encode(np.asfortranarray(rim, np.uint8))
        rims = super().computeIoU(image, category)
        for entries in kept:
            for entry in entries:
                entry["segmentation"] = entry.pop("whole")
        crowd = np.array([bool(entry["iscrowd"]) for entry in kept[0]])
        return np.where(crowd, masks, np.minimum(masks, rims))


@pytest.fixture(scope="module")
def report(data, scenes):
    return evaluate(Oracle(scenes), data, task="instance")


def test_the_cases_are_worth_comparing(report, scenes):
    assert any(scene.crowds for scene in scenes)
    figures = [report.scores.metrics[n] for n in NAMES]
    assert all(0 < v < 100 for v in figures), figures


def test_ap_equals_cocoeval(report, data, results):
    expected = stats(COCOeval(*loaded(data, results), "segm"))
    assert [report.scores.metrics[n] for n in NAMES] == expected


def test_boundary_ap_equals_the_definition(report, data, results):
    expected = stats(BoundaryEval(*loaded(data, results), "segm"))
    assert [report.scores.metrics[f"boundary_{n}"] for n in NAMES] == expected
    assert report.scores.metrics["boundary_AP"] < report.scores.metrics["AP"]


def test_both_equal_faster_coco_eval(report, data, results):
    other = pytest.importorskip("faster_coco_eval", reason="pip install faster-coco-eval")
    for prefix, kind in (("", "segm"), ("boundary_", "boundary")):
        with contextlib.redirect_stdout(io.StringIO()):
            truth = other.COCO(str(data / "instances.json"))
            found = truth.loadRes(str(results))
            evaluation = other.COCOeval_faster(truth, found, kind)
        expected = stats(evaluation)
        assert [report.scores.metrics[prefix + n] for n in NAMES] == pytest.approx(expected)


def test_per_class(report, data, results):
    whole = COCOeval(*loaded(data, results), "segm")
    stats(whole)
    for number, one in enumerate(report.scores.classes):
        precision = whole.eval["precision"][:, :, number, 0, -1]
        assert one.values["AP"] == 100 * precision[precision > -1].mean()


def test_image_scores_are_ap_of_the_image(report, data, results):
    for number, image in enumerate(report.images, 1):
        single = COCOeval(*loaded(data, results), "segm")
        single.params.imgIds = [number]
        assert image.score == pytest.approx(stats(single)[0])


def test_an_annotation_id_of_zero_is_matched_like_any_other(tmp_path, scenes, report):
    folder = tmp_path / "zero"
    write_scenes(folder, scenes)
    edit(
        folder / "instances.json",
        lambda c: [a.update(id=a["id"] - 1) for a in c["annotations"]],
    )
    again = evaluate(Oracle(scenes), open_data(folder, task="instance"), task="instance")
    assert again.scores.metrics == report.scores.metrics


def test_images_without_objects_cost_precision():
    metric = AveragePrecision(match(CATEGORIES[:2], CATEGORIES, Matching()))
    mask = np.zeros((40, 40), bool)
    mask[5:30, 5:30] = True
    empty = InstanceTruth(size=(40, 40), objects=())
    record = metric.measure(empty, instance_prediction((40, 40), [(0, 0.9, mask)]))
    assert record["score"] is None
    assert metric.summarise([record]).metrics["AP"] is None
    nothing = metric.measure(empty, instance_prediction((40, 40), []))
    assert nothing["segm"] == {}
