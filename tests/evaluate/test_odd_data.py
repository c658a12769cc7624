"""Whatever is wrong with data is said in one sentence, and nothing is passed over."""

import json
import re
import shutil

import numpy as np
import pytest
from PIL import Image

from m2f.errors import DataError, ImageError, MissingFile, UsageError
from m2f.evaluate import Matching, evaluate, open_data
from tests.evaluate.made import CATEGORIES, Oracle, Scene, edit, rle, write_scenes


def judge(odd, task="panoptic", **options):
    folder, oracle = odd
    labels = {"labels": "indices"} if task == "semantic" else {}
    data = open_data(folder, task=task, **{**labels, **options})
    return evaluate(oracle, data, task=task)


def refused(kind, text, odd, task="panoptic", **options):
    with pytest.raises(kind, match=text) as caught:
        judge(odd, task, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def entries(content):
    return [entry for a in content["annotations"] for entry in a["segments_info"]]


@pytest.mark.parametrize("task", ["panoptic", "instance", "semantic"])
def test_as_written_it_is_fine(odd, task):
    assert len(judge(odd, task).images) == 3


@pytest.mark.parametrize("file", ["images/0002.png", "panoptic/0002.png"])
def test_a_missing_file_is_found_before_the_start(odd, file):
    (odd[0] / file).unlink()
    message = refused(MissingFile, r"1 of 6 files .* do not exist: \S*0002.png", odd)
    assert file in message
    assert odd[1].asked == 0


@pytest.mark.parametrize(
    ("task", "name"), [("panoptic", "panoptic"), ("instance", "instances")]
)
def test_no_annotations(odd, task, name):
    (odd[0] / f"{name}.json").unlink()
    refused(MissingFile, rf"has no {name}\*\.json", odd, task)


def test_no_images_folder(odd):
    shutil.rmtree(odd[0] / "images")
    refused(MissingFile, "no folder of images beside it", odd)
    refused(MissingFile, "no such folder of images", odd, images=odd[0] / "elsewhere")


def test_no_segments_folder(odd):
    refused(MissingFile, "no such folder of panoptic PNGs", odd, segments=odd[0] / "elsewhere")


def test_nothing_there(odd):
    with pytest.raises(MissingFile, match="no such file or folder"):
        open_data(odd[0] / "elsewhere", task="panoptic")


def test_several_annotation_files(odd):
    shutil.copy(odd[0] / "panoptic.json", odd[0] / "panoptic_2.json")
    refused(UsageError, r"has 2 annotation files \(panoptic.json, panoptic_2.json\)", odd)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("{", "is not JSON"),
        ("\x00\xff", "is not JSON"),
        ("[]", "holds a JSON list"),
        ("{}", "has no 'images'"),
        ('{"images": [], "annotations": 3, "categories": []}', "'annotations' cannot be 3"),
        ('{"images": [], "annotations": [], "categories": []}', "defines no category"),
        (
            '{"images": [7], "annotations": [], "categories": []}',
            "image 0: expected an object, got 7",
        ),
    ],
)
@pytest.mark.parametrize(
    ("task", "name"), [("panoptic", "panoptic"), ("instance", "instances")]
)
def test_a_file_that_is_no_annotation(odd, task, name, content, text):
    (odd[0] / f"{name}.json").write_text(content)
    refused(DataError, text, odd, task)


def test_the_other_kind_of_file(odd):
    folder, oracle = odd
    with pytest.raises(DataError, match="this is a panoptic file"):
        open_data(folder / "panoptic.json", task="instance")
    with pytest.raises(DataError, match="is this a panoptic file"):
        open_data(folder / "instances.json", task="panoptic", segments=folder / "panoptic")
    data = open_data(folder / "instances.json", task="instance")
    with pytest.raises(UsageError, match="cannot judge semantic"):
        evaluate(oracle, data, task="semantic")


PANOPTIC = {
    "annotation of an unknown image": (
        lambda c: c["annotations"][1].update(image_id=99),
        "annotation 1 is of image 99, which is not among the file's 3",
    ),
    "image without annotation": (
        lambda c: c["annotations"].pop(),
        r"1 of 3 images have no annotation: 3;",
    ),
    "image annotated twice": (
        lambda c: c["annotations"].append(c["annotations"][0]),
        "image 1 is annotated twice",
    ),
    "image id twice": (
        lambda c: c["images"][1].update(id=1),
        "image id 1 is used twice",
    ),
    "one file for two images": (
        lambda c: c["images"][1].update(file_name="0001.png"),
        "image 2 and 1 are the same file",
    ),
    "category id twice": (
        lambda c: c["categories"][1].update(id=3),
        "category 3: the id is used twice",
    ),
    "category without name": (
        lambda c: c["categories"][1].pop("name"),
        "category 7: has no 'name'",
    ),
    "unknown category": (
        lambda c: c["annotations"][0]["segments_info"][0].update(category_id=5),
        "category 5 is not among",
    ),
    "segment id twice": (
        lambda c: c["annotations"][0]["segments_info"].append(
            c["annotations"][0]["segments_info"][0]
        ),
        "the id is used twice",
    ),
    "segment id of void": (
        lambda c: c["annotations"][0]["segments_info"][0].update(id=0),
        "segment 0: ids run from 1",
    ),
    "segment that is not drawn": (
        lambda c: c["annotations"][0]["segments_info"].append({"id": 5, "category_id": 3}),
        "shows segments none that the annotation lacks, and lacks its segments 5;",
    ),
    "segment that is not listed": (
        lambda c: c["annotations"][0]["segments_info"].pop(),
        "that the annotation lacks, and lacks its segments none",
    ),
    "crowd that is neither": (
        lambda c: c["annotations"][0]["segments_info"][0].update(iscrowd="maybe"),
        "'iscrowd' must be 0 or 1, got 'maybe'",
    ),
    "another height": (
        lambda c: c["images"][0].update(height=41),
        "0001.png is 40x56, the annotation says 41x56",
    ),
    "no segment at all": (
        lambda c: [a.update(segments_info=[]) for a in c["annotations"]],
        "holds no segment",
    ),
}


@pytest.mark.parametrize("name", PANOPTIC)
def test_panoptic_file(odd, name):
    change, text = PANOPTIC[name]
    edit(odd[0] / "panoptic.json", change)
    refused(DataError, text, odd)


INSTANCES = {
    "annotation id twice": (
        lambda c: c["annotations"][1].update(id=1),
        "annotation 1: the id 1 is used twice",
    ),
    "unknown category": (
        lambda c: c["annotations"][0].update(category_id=20),
        "annotation 1: category 20 is not among",
    ),
    "no segmentation": (
        lambda c: c["annotations"][0].pop("segmentation"),
        "has no 'segmentation'",
    ),
    "no annotation": (lambda c: c["annotations"].clear(), "holds no annotation"),
    "polygon that is a box": (
        lambda c: c["annotations"][0].update(segmentation=[[1, 1, 5, 5]]),
        "at least three x, y pairs",
    ),
    "polygon of an odd count": (
        lambda c: c["annotations"][0].update(segmentation=[[1, 1, 5, 5, 3, 3, 2]]),
        "at least three x, y pairs",
    ),
    "no polygon": (
        lambda c: c["annotations"][0].update(segmentation=[]),
        "a segmentation a list of at least one",
    ),
    "mask of another size": (
        lambda c: c["annotations"][0]["segmentation"].update(size=[56, 40]),
        "its mask is 56x40, the image 40x56",
    ),
    "run lengths too short": (
        lambda c: c["annotations"][0]["segmentation"].update(counts=[5, 6]),
        "sum to 11, the image has 40x56 = 2240",
    ),
    "run lengths below zero": (
        lambda c: c["annotations"][0]["segmentation"].update(counts=[2240, 1, -1]),
        "whole numbers",
    ),
    "compressed run lengths cut off": (
        lambda c: c["annotations"][0]["segmentation"].update(
            counts=rle(np.ones((40, 56), bool))["counts"][:-1]
        ),
        "cut off or damaged",
    ),
    "compressed run lengths of something else": (
        lambda c: c["annotations"][0]["segmentation"].update(counts="\u00e9"),
        "does not belong in compressed run lengths",
    ),
    "image without size": (
        lambda c: c["images"][0].pop("height"),
        "image 1 has no 'height' and 'width'",
    ),
}


@pytest.mark.parametrize("name", INSTANCES)
def test_instance_file(odd, name):
    change, text = INSTANCES[name]
    edit(odd[0] / "instances.json", change)
    refused(DataError, text, odd, "instance")


@pytest.mark.parametrize(
    ("task", "text"),
    [
        ("panoptic", r"0001.png: is 30x56, its ground truth \(\S*0001.png\) 40x56"),
        ("instance", r"0001.png: is 30x56, its ground truth \(instances.json\) 40x56"),
        ("semantic", r"0001.png: is 30x56, its ground truth \(\S*0001.png\) 40x56"),
    ],
)
def test_image_and_label_of_two_sizes(odd, task, text):
    Image.fromarray(Scene(100).image[:30]).save(odd[0] / "images/0001.png")
    refused(DataError, text, odd, task)


def spoil(path, how):
    content = path.read_bytes()
    path.write_bytes(
        {"empty": b"", "text": b"no image", "cut": content[: len(content) // 2]}[how]
    )


@pytest.mark.parametrize("how", ["empty", "text", "cut"])
@pytest.mark.parametrize("task", ["panoptic", "semantic"])
def test_a_broken_label_image(odd, task, how):
    spoil(odd[0] / task / "0002.png", how)
    refused(DataError, r"0002.png: is (not an image|damaged)", odd, task)


@pytest.mark.parametrize("how", ["empty", "text", "cut"])
def test_a_broken_image(odd, how):
    spoil(odd[0] / "images/0002.png", how)
    refused(ImageError, "0002.png", odd)


def test_a_panoptic_png_of_one_channel(odd):
    Image.fromarray(np.zeros((40, 56), np.uint8)).save(odd[0] / "panoptic/0001.png")
    refused(DataError, "a panoptic PNG is 8-bit RGB, this one is uint8 40x56", odd)


def test_a_label_image_in_colours(odd):
    Image.fromarray(Scene(100).image).save(odd[0] / "semantic/0001.png")
    refused(
        DataError, "one channel of class values, this one is uint8 40x56x3", odd, "semantic"
    )


def test_label_values_without_meaning(odd):
    labels = np.full((40, 56), 2, np.uint8)
    labels[3, 4], labels[5, 6] = 9, 200
    Image.fromarray(labels).save(odd[0] / "semantic/0001.png")
    refused(
        DataError, "has values 9, 200, to which 'indices' gives no meaning", odd, "semantic"
    )


def test_images_and_labels_without_partner(odd):
    (odd[0] / "semantic/0002.png").rename(odd[0] / "semantic/0009.png")
    text = r"1 of 3 images .* \(0002\), and 1 of 3 label images have no image \(0009\)"
    refused(MissingFile, text, odd, "semantic")


def test_two_images_of_one_name(odd):
    Image.fromarray(Scene(100).image).save(odd[0] / "images/0001.jpg")
    refused(DataError, "differ only in their suffix", odd, "semantic")


def test_label_folders_need_a_convention(odd):
    with pytest.raises(UsageError, match="--labels: ade20k, ade20k-reduced, cityscapes"):
        open_data(odd[0], task="semantic")
    refused(UsageError, "no label convention is called 'coco'", odd, "semantic", labels="coco")
    refused(UsageError, "is also that of the category dog", odd, "semantic", ignore=1)


def test_options_that_do_not_belong(odd):
    refused(UsageError, "--labels and --ignore belong", odd, labels="ade20k")
    refused(UsageError, "--segments belongs to panoptic", odd, "instance", segments=odd[0])
    refused(UsageError, "--segments belongs to panoptic", odd, "semantic", segments=odd[0])


def test_categories_the_model_lacks(odd):
    folder, oracle = odd
    oracle.metadata = type(oracle.metadata)(
        task="panoptic", tasks=("panoptic",), categories=CATEGORIES[:3]
    )
    with pytest.raises(DataError, match=r"lacks 1 of .* 4 categories: sky \(21\);"):
        evaluate(oracle, folder, task="panoptic")
    assert oracle.asked == 0


def test_missing_categories_that_are_allowed_count_as_missed(tmp_path):
    scenes = [Scene(seed) for seed in range(300, 304)]
    write_scenes(tmp_path / "set", scenes)
    edit(tmp_path / "set/panoptic.json", lambda c: c["categories"][3].update(name="cloud"))
    report = evaluate(
        Oracle(scenes), tmp_path / "set", matching=Matching(allow_missing=True), task="panoptic"
    )
    cloud = report.scores.classes[3].values
    assert cloud["PQ"] == 0
    assert cloud["FN"] == sum(v == 3 for s in scenes for v in s.labels.values())
    assert cloud["FP"] == 0
    assert report.scores.metrics["categories"] == 4
    written = report.to_json()["categories"]
    assert written["missing_in_model"] == ["cloud"]
    assert written["missing_allowed"] is True
    assert written["missing_in_data"] == ["sky"]
    assert any("count as missed: cloud" in remark for remark in report.remarks())


def test_images_without_ground_truth_take_part_and_are_counted(odd):
    folder, _ = odd
    edit(folder / "panoptic.json", lambda c: c["annotations"][0].update(segments_info=[]))
    Image.fromarray(np.zeros((40, 56, 3), np.uint8)).save(folder / "panoptic/0001.png")
    report = judge(odd)
    assert len(report.images) == 3
    assert report.empty == 1
    # All that is predicted there lies on void.
    assert report.images[0].score is None


def test_no_ground_truth_anywhere(odd):
    for number in (1, 2, 3):
        void = Image.fromarray(np.full((40, 56), 255, np.uint8))
        void.save(odd[0] / f"semantic/{number:04d}.png")
    refused(DataError, "none of 3 images has any ground truth", odd, "semantic")


def test_areas_that_disagree_are_noted(odd):
    edit(odd[0] / "panoptic.json", lambda c: entries(c)[0].update(area=7))
    report = judge(odd)
    (note,) = report.notes
    assert re.fullmatch(r"0001.png: segment \d+ has area 7 in the JSON and \d+ pixels.*", note)
    assert report.to_json()["notes"] == [note]


def test_a_limit_of_nothing(odd):
    folder, oracle = odd
    with pytest.raises(UsageError, match="limit of 0"):
        evaluate(oracle, folder, limit=0)


def test_a_task_the_model_does_not_know(odd):
    folder, oracle = odd
    oracle.metadata = type(oracle.metadata)(
        task="panoptic", tasks=("panoptic",), categories=CATEGORIES
    )
    with pytest.raises(
        UsageError, match="cannot answer task 'instance'; it answers 'panoptic'"
    ):
        evaluate(oracle, folder, task="instance")


def test_results_are_no_ground_truth(odd):
    (odd[0] / "instances.json").write_text(json.dumps([{"image_id": 1, "score": 0.5}]))
    refused(DataError, "a list is of results, not of truth", odd, "instance")
