"""`m2f run` and `m2f.run.run`: which files appear, and whose."""

import json

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco

from m2f.run import run, saves


def listing(folder):
    return {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture
def copies(photo, tmp_path):
    """Copies the photograph to places below tmp_path."""

    def copy(*names):
        paths = [tmp_path / name for name in names]
        for path in paths:
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.open(photo).convert("RGB").save(path)
        return paths

    return copy


def test_an_overlay_unless_told_otherwise(m2f, exported, photo, tmp_path):
    result = m2f("run", exported, photo, "-o", tmp_path / "out")
    assert listing(tmp_path / "out") == {"street_overlay.png"}
    assert Image.open(tmp_path / "out/street_overlay.png").size == (120, 90)
    assert "street.png" in result.stdout


def test_everything_there_is(m2f, exported, photo, tmp_path):
    out = tmp_path / "out"
    what = "panoptic,semantic,coco,json"
    result = m2f(
        "run", exported, photo, "-o", out, "--save", what, "--save", "overlay", "--json"
    )
    report = json.loads(result.stdout)
    names = ["overlay.png", "segments.json", "semantic.png"]
    wanted = {
        *(f"street_{n}" for n in names),
        "panoptic/street.png",
        "panoptic.json",
        "coco.json",
    }
    assert listing(out) == wanted
    (image,) = report["images"]
    assert {*image["outputs"], *report["outputs"]} == {str(out / name) for name in wanted}
    assert (report["failed"], image["size"], image["task"]) == (0, [90, 120], "panoptic")

    document = json.loads((out / "panoptic.json").read_text())
    (annotation,) = document["annotations"]
    rgb = np.asarray(Image.open(out / "panoptic" / annotation["file_name"])).astype(int)
    ids = rgb @ [1, 256, 65536]
    areas = {info["id"]: info["area"] for info in annotation["segments_info"]}
    assert areas == {i: (ids == i).sum() for i in np.unique(ids) if i}
    assert document["images"][0]["id"] == annotation["image_id"] == "street"
    assert len(document["categories"]) == 3
    for entry in json.loads((out / "coco.json").read_text()):
        assert coco.area(entry["segmentation"]) in areas.values()


def test_numbers_are_ids_as_in_coco(exported, copies, tmp_path):
    out = tmp_path / "out"
    run(exported, copies("000000000139.png", "000000000285.png"), out, save=["panoptic"])
    document = json.loads((out / "panoptic.json").read_text())
    assert [image["id"] for image in document["images"]] == [139, 285]


@pytest.mark.parametrize(
    ("images", "pictures"),
    [
        (("a/x.png", "b/y.png"), {"x_overlay.png", "y_overlay.png"}),
        (("a/x.png", "b/x.png"), {"a/x_overlay.png", "b/x_overlay.png"}),
        (("a/x.png", "a/x.bmp"), {"x.png_overlay.png", "x.bmp_overlay.png"}),
        (
            ("a/x.png", "a/x.bmp", "b/x.png"),
            {"a/x.png_overlay.png", "a/x.bmp_overlay.png", "b/x.png_overlay.png"},
        ),
    ],
)
def test_images_of_the_same_name_stay_apart(exported, copies, tmp_path, images, pictures):
    run(exported, copies(*images), tmp_path / "out")
    assert listing(tmp_path / "out") == pictures


def test_one_image_named_twice_is_one(exported, copies, tmp_path):
    (path,) = copies("a/x.png")
    report = run(exported, [path, tmp_path / "a/../a/x.png", tmp_path / "a"], tmp_path / "out")
    assert len(report.images) == 1


def test_one_bad_image_does_not_stop_the_others(m2f, exported, copies, tmp_path):
    copies("in/a.png", "in/c.png")
    (tmp_path / "in/b.png").write_bytes(b"not an image")
    result = m2f("run", exported, tmp_path / "in", "-o", tmp_path / "out", "--json", code=1)
    assert listing(tmp_path / "out") == {"a_overlay.png", "c_overlay.png"}
    assert "b.png" in result.stderr
    assert "1 of 3 images failed" in result.stderr
    report = json.loads(result.stdout)
    assert report["failed"] == 1
    assert [("error" in image) for image in report["images"]] == [False, True, False]


def test_an_image_is_never_overwritten(refused, exported, copies, tmp_path):
    copies("a.png", "a_overlay.png")
    before = (tmp_path / "a_overlay.png").read_bytes()
    assert "choose another folder" in refused("run", exported, tmp_path, "-o", tmp_path, code=2)
    assert (tmp_path / "a_overlay.png").read_bytes() == before
    assert listing(tmp_path) == {"a.png", "a_overlay.png"}


def test_results_may_lie_beside_the_images(m2f, exported, copies, tmp_path):
    copies("a.png")
    m2f("run", exported, tmp_path / "a.png", "-o", tmp_path)
    assert listing(tmp_path) == {"a.png", "a_overlay.png"}


@pytest.mark.parametrize(("task", "save"), [("semantic", "panoptic"), ("instance", "semantic")])
def test_results_that_a_task_does_not_have(refused, exported, photo, tmp_path, task, save):
    out = tmp_path / "out"
    words = ("run", exported, photo, "-o", out, "--task", task, "--save", save)
    assert f"no {save} file" in refused(*words, code=2)
    assert not out.exists()


def test_saves():
    assert saves(["json,overlay", "json"]) == ("overlay", "json")
    with pytest.raises(Exception, match="cannot save pictures; there are overlay"):
        saves(["pictures"])
