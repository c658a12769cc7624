"""Drawn scenes, and their journey through COCO's files."""

import json

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from m2f.errors import MissingFile, UsageError
from m2f.train import photographs, sample
from m2f.train.coco import SEMANTIC_VOID, read_panoptic, write_coco
from m2f.train.scenes import CATEGORIES, SMALLEST, scene


@pytest.fixture(scope="module")
def many():
    return [scene(seed, (96, 128)) for seed in range(60)]


def test_same_seed_same_scene():
    first, again, other = scene(3), scene(3), scene(4)
    assert np.array_equal(first.image, again.image)
    assert np.array_equal(first.segments, again.segments)
    assert not np.array_equal(first.image, other.image)


def test_every_segment_is_seen_and_numbered(many):
    for one in many:
        area = np.bincount(one.segments.ravel(), minlength=len(one.names) + 1)
        assert len(area) == len(one.names) + 1
        assert (area[1:] >= SMALLEST).all()
        assert one.masks.sum() == area[1:].sum()


def test_scenes_show_all_classes_in_many_sizes(many):
    seen = {name for one in many for name in one.names}
    assert seen == {category.name for category in CATEGORIES}
    things = {category.name for category in CATEGORIES if category.is_thing}
    areas = [
        mask.mean()
        for one in many
        for mask, name in zip(one.masks, one.names, strict=True)
        if name in things
    ]
    assert min(areas) < 0.005
    assert max(areas) > 0.1


def test_stuff_is_one_segment_per_class(many):
    stuff = {category.name for category in CATEGORIES if not category.is_thing}
    for one in many:
        names = [name for name in one.names if name in stuff]
        assert len(names) == len(set(names))


def test_coco_files_give_the_scene_back(tmp_path, many):
    write_coco(many[:5], tmp_path, CATEGORIES)
    back = read_panoptic(tmp_path)
    assert len(back) == 5
    for before, after in zip(many, back.values(), strict=False):
        assert np.array_equal(after.image, before.image)
        assert np.array_equal(after.segments, before.segments)
        assert after.names == before.names


def test_official_reader_sees_the_same_masks(tmp_path, many):
    write_coco(many[:5], tmp_path, CATEGORIES)
    coco = COCO(str(tmp_path / "instances.json"))
    things = {category.name: category.id for category in CATEGORIES if category.is_thing}
    for number, one in enumerate(many[:5], start=1):
        found = coco.loadAnns(coco.getAnnIds(imgIds=number))
        kept = [i for i, name in enumerate(one.names) if name in things]
        assert [a["category_id"] for a in found] == [things[one.names[i]] for i in kept]
        for annotation, i in zip(found, kept, strict=True):
            assert np.array_equal(coco.annToMask(annotation), one.masks[i])
            assert annotation["area"] == one.masks[i].sum()


def test_class_map_and_areas_agree(tmp_path, many):
    write_coco(many[:3], tmp_path, CATEGORIES)
    record = json.loads((tmp_path / "panoptic.json").read_text())
    for one, entry in zip(many, record["annotations"], strict=False):
        classes = np.asarray(Image.open(tmp_path / "semantic" / entry["file_name"]))
        assert np.array_equal(classes == SEMANTIC_VOID, one.segments == 0)
        for index, category in enumerate(CATEGORIES):
            area = sum(
                s["area"] for s in entry["segments_info"] if s["category_id"] == category.id
            )
            assert (classes == index).sum() == area


def test_unknown_class_is_refused(tmp_path, many):
    with pytest.raises(UsageError, match="not among the categories"):
        write_coco(many[:1], tmp_path, CATEGORIES[:1])


def test_missing_folder(tmp_path):
    with pytest.raises(MissingFile, match=r"panoptic\.json"):
        read_panoptic(tmp_path)


def test_photographs_are_wholly_annotated_with_known_classes():
    known = {category.name for category in sample.CATEGORIES}
    for one in photographs.photographs().values():
        assert set(one.names) <= known
        assert (one.segments > 0).all()
        assert max(one.segments.shape) == 256


@pytest.mark.parametrize("size", [(128, 128), (160, 256), (192, 160)])
def test_view_of_a_photograph_has_the_size_asked_for(size):
    for seed in range(20):
        view = photographs.view(np.random.default_rng(seed), size)
        assert view.image.shape == (*size, 3)
        assert view.segments.shape == size
        assert view.segments.max() == len(view.names)
