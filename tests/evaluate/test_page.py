import base64
import io
import re

import numpy as np
import pytest
from PIL import Image

from m2f.errors import UsageError
from m2f.evaluate import evaluate, open_data, write_page
from m2f.evaluate.page import prediction_from_truth
from tests.evaluate.made import CATEGORIES, edit


@pytest.mark.parametrize("task", ["panoptic", "instance", "semantic"])
def test_the_worst_images_beside_their_truth(written, oracle, tmp_path, task):
    labels = "indices" if task == "semantic" else None
    data = open_data(written, task=task, labels=labels)
    report = evaluate(oracle, data, task=task)
    write_page(tmp_path / "page.html", report, oracle, data, worst=3)
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    pictures = re.findall(r'src="data:image/jpeg;base64,([^"]+)"', page)
    assert len(pictures) == 9
    for text in pictures:
        assert Image.open(io.BytesIO(base64.b64decode(text))).size == (56, 40)
    captions = re.findall(r"<figcaption>(\S+): ([\d.]+)</figcaption>", page)
    assert [c for c, _ in captions] == [image.key for image in report.worst[:3]]
    assert not re.search(r'(src|href)="(?!data:)', page)  # nothing from elsewhere
    for name in ("cat", next(iter(report.scores.metrics))):
        assert f"<td>{name}</td>" in page


def test_names_of_others_are_no_html(odd, tmp_path):
    folder, oracle = odd

    def rename(content):
        content["images"][0]["file_name"] = "<b>.png"

    (folder / "images/0001.png").rename(folder / "images/<b>.png")
    edit(folder / "panoptic.json", rename)
    data = open_data(folder, task="panoptic")
    write_page(tmp_path / "page.html", evaluate(oracle, data), oracle, data)
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "&lt;b&gt;.png" in page
    assert "<b>.png" not in page


def test_another_data_set(written, odd, oracle, tmp_path):
    report = evaluate(oracle, written)
    edit(
        odd[0] / "panoptic.json",
        lambda c: [i.update(file_name=f"x{i['id']}") for i in c["images"]],
    )
    other = open_data(odd[0], task="panoptic")
    with pytest.raises(UsageError, match="is not what the report is about"):
        write_page(tmp_path / "page.html", report, oracle, other)


@pytest.mark.parametrize("task", ["panoptic", "instance", "semantic"])
def test_truth_as_a_prediction_is_the_truth(written, scenes, task):
    labels = "indices" if task == "semantic" else None
    data = open_data(written, task=task, labels=labels).of_model(CATEGORIES)
    for item, scene in zip(data.items, scenes, strict=True):
        drawn = prediction_from_truth(data.truth(item), data.categories)
        if task == "instance":
            things = [k for k, v in scene.labels.items() if v < 2]
            np.testing.assert_array_equal(drawn.masks, [scene.ids == k for k in things])
        else:
            np.testing.assert_array_equal(drawn.label_map, scene.semantic)
