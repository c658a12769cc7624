"""What of a data set becomes a target."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from m2f.config import Preprocess
from m2f.errors import DataError, MissingFile, UsageError
from m2f.evaluate import open_data
from m2f.train.examples import Examples
from m2f.train.jitter import Jitter
from tests.train.easy import CATEGORIES, SIDE, easy, write_easy

AS_IT_IS = Jitter(crop=(SIDE, SIDE), scale=(1, 1), flip=False)
SEEDS = range(2000, 2006)
NAMES = [category.name for category in CATEGORIES]


@pytest.fixture
def folder(tmp_path):
    return write_easy(tmp_path / "set", SEEDS)


def edit(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def opened(folder, task, **options):
    if task == "semantic":
        data = open_data(folder, task=task, labels="indices").of_model(CATEGORIES)
    else:
        data = open_data(folder, task=task)
    settings = {"batch": 1, "jitter": AS_IT_IS, "preprocess": Preprocess(), "seed": 0}
    return Examples(data, task, **{**settings, **options})


def found(examples):
    """What each scene teaches, by seed: (class name, mask) pairs, sorted."""
    scenes = {easy(seed).image.astype(np.float32).mean().round(3): seed for seed in SEEDS}
    mean, std = (torch.tensor(v)[:, None, None] for v in (Preprocess().mean, Preprocess().std))
    teachings = {}
    for step in SEEDS:
        batch = examples(step - SEEDS[0])
        image = (batch.images[0] * std + mean).round().numpy()
        classes, masks = batch.targets[0]
        seed = scenes[image.mean().round(3)]
        pairs = zip([NAMES[i] for i in classes.tolist()], masks.numpy(), strict=True)
        teachings[seed] = sorted(pairs, key=lambda pair: (pair[0], pair[1].tobytes()))
    return teachings


def expected(seed, names):
    scene = easy(seed)
    pairs = [p for p in zip(scene.names, scene.masks, strict=True) if p[0] in names]
    return sorted(pairs, key=lambda pair: (pair[0], pair[1].tobytes()))


def assert_same(a, b):
    assert [name for name, _ in a] == [name for name, _ in b]
    assert all(np.array_equal(m, n) for (_, m), (_, n) in zip(a, b, strict=True))


def test_panoptic_segments(folder):
    for seed, pairs in found(opened(folder, "panoptic")).items():
        assert_same(pairs, expected(seed, NAMES))


def test_objects(folder):
    teachings = found(opened(folder, "instance"))
    for seed, pairs in teachings.items():
        assert_same(pairs, expected(seed, ("ball", "box")))
    assert len(teachings) == len(SEEDS)  # each image once before any comes again


def test_classes_of_label_images(folder):
    for seed, pairs in found(opened(folder, "semantic")).items():
        scene = easy(seed)
        masks = {name: np.zeros((SIDE, SIDE), np.bool_) for name in scene.names}
        for name, mask in zip(scene.names, scene.masks, strict=True):
            masks[name] |= mask
        assert_same(pairs, sorted(masks.items()))


def test_crowds_and_void_belong_to_no_mask(folder):
    def spoil(content):
        for annotation in content["annotations"]:
            crowd = next(s for s in annotation["segments_info"] if s["category_id"] == 3)
            crowd["iscrowd"] = 1
            path = folder / "panoptic" / annotation["file_name"]
            ids = np.asarray(Image.open(path)).copy()
            ids[:8] = 0  # nobody labelled the top rows
            Image.fromarray(ids).save(path)

    edit(folder / "panoptic.json", spoil)
    for seed, pairs in found(opened(folder, "panoptic")).items():
        without = expected(seed, ("ball", "box", "grass"))
        assert_same(pairs, [(n, m & (np.arange(SIDE) >= 8)[:, None]) for n, m in without])


def test_crowds_of_objects_are_dropped(folder):
    def crowds(content):
        for annotation in content["annotations"]:
            annotation["iscrowd"] = int(annotation["category_id"] == 1)

    edit(folder / "instances.json", crowds)
    for pairs in found(opened(folder, "instance")).values():
        assert {name for name, _ in pairs} <= {"box"}


def test_the_same_step_gives_the_same_batch_and_another_another(folder):
    options = {"batch": 3, "jitter": Jitter(crop=(64, 96))}
    first, again = (opened(folder, "panoptic", **options) for _ in range(2))
    for step in (0, 5, 1):  # in any order
        a, b = first(step), again(step)
        assert torch.equal(a.images, b.images)
        for one, other in zip(a.targets, b.targets, strict=True):
            assert torch.equal(one.masks, other.masks)
            assert one.masks.shape[1:] == a.images.shape[2:] == (64, 96)
            assert one.masks.flatten(1).any(1).all()
    assert not torch.equal(first(0).images, first(1).images)
    other = opened(folder, "panoptic", **options, seed=1)
    assert not torch.equal(first(0).images, other(0).images)


def test_what_is_beyond_the_image_is_padding(folder):
    small = Jitter(crop=(64, 64), scale=(0.5, 0.5))
    images, targets = opened(folder, "panoptic", jitter=small)(0)
    beyond = torch.ones(64, 64, dtype=torch.bool)
    beyond[:32, :32] = False
    assert (images[0][:, beyond] == 0).all()
    assert not targets[0].masks[:, beyond].any()
    assert targets[0].masks[:, ~beyond].any(0).all()


def test_data_that_cannot_teach(folder):
    with pytest.raises(UsageError, match="cannot teach instance, only panoptic, semantic"):
        Examples(
            open_data(folder, task="panoptic"),
            "instance",
            batch=1,
            jitter=AS_IT_IS,
            preprocess=Preprocess(),
            seed=0,
        )
    with pytest.raises(UsageError, match="a batch of 0 images"):
        opened(folder, "panoptic", batch=0)
    Image.new("RGB", (9, 9)).save(folder / "images/000000000001.png")
    with pytest.raises(DataError, match=r"is 9x9, its ground truth .* 64x64"):
        opened(folder, "panoptic", batch=6)(0)
    (folder / "images/000000000002.png").unlink()
    with pytest.raises(MissingFile, match="1 of 12 files"):
        opened(folder, "panoptic")
