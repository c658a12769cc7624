"""Drawn scenes on disk are the data set that the evaluators read."""

import numpy as np
import pytest
from PIL import Image

from m2f.errors import UsageError
from m2f.evaluate import open_data
from m2f.train.draw import draw
from m2f.train.scenes import scene


def test_the_files_hold_the_scenes(tmp_path):
    draw(tmp_path / "data", count=3, first=7, size=(64, 96))
    names = sorted(p.name for p in (tmp_path / "data" / "images").iterdir())
    assert len(names) == 3
    with Image.open(tmp_path / "data" / "images" / names[1]) as picture:
        assert (np.asarray(picture) == scene(8, (64, 96)).image).all()
    data = open_data(tmp_path / "data" / "panoptic.json", task="panoptic")
    assert len(data.items) == 3


def test_what_is_there_is_left_alone(tmp_path):
    (tmp_path / "precious").write_text("mine")
    with pytest.raises(UsageError, match="not an empty folder"):
        draw(tmp_path, count=1)
    assert [p.name for p in tmp_path.iterdir()] == ["precious"]


def test_an_interrupted_drawing_leaves_nothing(tmp_path):
    def stop(number, _count, _scene):
        if number == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        draw(tmp_path / "data", count=3, size=(64, 64), progress=stop)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("wrong", [{"count": 0}, {"first": -1}, {"size": (31, 64)}])
def test_nothing_to_draw_is_said(tmp_path, wrong):
    with pytest.raises(UsageError, match="cannot draw"):
        draw(tmp_path / "data", **wrong)
