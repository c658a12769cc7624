"""The label conventions of public data sets, and where files are looked for."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from m2f.evaluate import evaluate, open_data
from m2f.evaluate.folders import CONVENTIONS
from m2f.models.categories import ADE20K, CITYSCAPES, MAPILLARY_SEMANTIC
from m2f.train.coco import write_coco
from m2f.train.scenes import CATEGORIES as DRAWN
from m2f.train.scenes import scene
from tests.evaluate.made import CATEGORIES, listed


def folder_of(tmp_path, labels, image="a.png", label="a.png", dtype=np.uint8):
    for name, file in (("images", image), ("labels", label)):
        (tmp_path / name / file).parent.mkdir(parents=True, exist_ok=True)
    labels = np.array([labels], dtype)
    Image.fromarray(np.zeros((*labels.shape, 3), np.uint8)).save(tmp_path / "images" / image)
    Image.fromarray(labels).save(tmp_path / "labels" / label)
    return tmp_path


@pytest.mark.parametrize(
    ("name", "values", "indices"),
    [
        ("ade20k", [0, 1, 150], [-1, 0, 149]),
        ("ade20k-reduced", [0, 149, 255], [0, 149, -1]),
        ("cityscapes-trainids", [0, 18, 255], [0, 18, -1]),
        ("cityscapes-labelids", [7, 33, 0, 6, 9, 24], [0, 18, -1, -1, -1, 11]),
        ("mapillary", [0, 64, 65], [0, 64, -1]),
        ("ids", [3, 21, 7, 255], [0, 3, 1, -1]),
        ("indices", [3, 0, 255], [3, 0, -1]),
    ],
)
def test_conventions(tmp_path, name, values, indices):
    data = open_data(folder_of(tmp_path, values), task="semantic", labels=name)
    data = data.of_model(CATEGORIES)
    (item,) = data.items
    assert data.truth(item).labels.tolist() == [indices]


def test_what_the_indices_stand_for():
    assert CONVENTIONS["ade20k"].categories == ADE20K
    assert CONVENTIONS["ade20k"].categories[0].name == "wall"
    assert CONVENTIONS["cityscapes-trainids"].categories == CITYSCAPES
    assert CONVENTIONS["cityscapes-labelids"].categories[11].name == "person"
    assert CONVENTIONS["mapillary"].categories == MAPILLARY_SEMANTIC


def test_categories_from_a_file(tmp_path):
    (tmp_path / "c.json").write_text(json.dumps({"categories": listed()}))
    folder = folder_of(tmp_path, [3, 20, 255])
    data = open_data(folder, task="semantic", labels=str(tmp_path / "c.json"))
    assert [c.name for c in data.categories] == ["cat", "dog", "grass", "sky"]
    assert data.truth(data.items[0]).labels.tolist() == [[0, 2, -1]]


def test_another_value_to_ignore(tmp_path):
    data = open_data(folder_of(tmp_path, [0, 9]), task="semantic", labels="indices", ignore=9)
    assert data.of_model(CATEGORIES).truth(data.items[0]).labels.tolist() == [[0, -1]]


def test_sixteen_bits_and_palettes(tmp_path):
    data = open_data(
        folder_of(tmp_path, [1, 300], dtype=np.uint16),
        task="semantic",
        labels="indices",
        ignore=300,
    ).of_model(CATEGORIES)
    assert data.truth(data.items[0]).labels.tolist() == [[1, -1]]
    palette = Image.fromarray(np.array([[2, 255]], np.uint8)).convert("P")
    palette.putpalette(list(range(256)) * 3)
    palette.save(tmp_path / "labels/a.png")
    data = open_data(tmp_path, task="semantic", labels="indices").of_model(CATEGORIES)
    assert data.truth(data.items[0]).labels.tolist() == [[2, -1]]


def test_cityscapes_names(tmp_path):
    town = "bonn/bonn_1"
    image, label = f"{town}_leftImg8bit.png", f"{town}_gtFine_labelTrainIds.png"
    folder = folder_of(tmp_path, [0, 18], image, label)
    for other in ("color", "instanceIds", "labelIds"):
        shutil.copy(folder / "labels" / label, folder / f"labels/{town}_gtFine_{other}.png")
    data = open_data(
        folder / "labels",
        task="semantic",
        images=folder / "images",
        labels="cityscapes-trainids",
    )
    (item,) = data.items
    assert item.key == town
    assert item.label.name.endswith("labelTrainIds.png")


def test_images_of_a_split_and_of_cityscapes_panoptic(tmp_path, written):
    root = tmp_path / "coco"
    (root / "annotations").mkdir(parents=True)
    shutil.copy(written / "panoptic.json", root / "annotations/panoptic_val2017.json")
    shutil.copytree(written / "panoptic", root / "annotations/panoptic_val2017")
    shutil.copytree(written / "images", root / "val2017/town")
    data = open_data(root, task="panoptic")
    assert data.items[0].image == root / "val2017/town/0001.png"
    assert data.items[0].image.is_file()


def test_polygons_and_run_lengths_are_the_same_objects(tmp_path):
    square = {"size": [10, 12], "counts": [12, 4, 6, 4, 94]}
    corners = [[1, 2, 3, 2, 3, 6, 1, 6]]
    annotations = [
        {"id": 1, "image_id": "x", "category_id": 3, "segmentation": square},
        {"id": "b", "image_id": "x", "category_id": 3, "segmentation": corners},
    ]
    image = {"id": "x", "file_name": "x.png", "height": 10, "width": 12}
    content = {"images": [image], "annotations": annotations, "categories": listed()}
    (tmp_path / "instances.json").write_text(json.dumps(content))
    (tmp_path / "images").mkdir()
    data = open_data(tmp_path, task="instance")
    first, second = data.truth(data.items[0]).objects
    assert first.rle["counts"] == second.rle["counts"]
    assert first.area == second.area == 8


def test_what_the_trainer_writes_can_be_judged(tmp_path):
    drawn = [scene(seed, (64, 64)) for seed in range(2)]
    write_coco(drawn, tmp_path, DRAWN)
    for task in ("panoptic", "instance", "semantic"):
        labels = "indices" if task == "semantic" else None
        data = open_data(tmp_path, task=task, labels=labels).of_model(DRAWN)
        for item, one in zip(data.items, drawn, strict=True):
            truth = data.truth(item)
            assert truth.size == (64, 64)
            if task == "panoptic":
                np.testing.assert_array_equal(truth.ids, one.segments)


def test_semantic_results_of_panoptic_data_and_of_its_label_folder_agree(written, oracle):
    from_segments = evaluate(oracle, written / "panoptic.json", task="semantic")
    data = open_data(written, task="semantic", labels="indices")
    from_labels = evaluate(oracle, data, task="semantic")
    assert from_segments.scores == from_labels.scores
