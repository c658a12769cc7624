"""`m2f demo`, on the model that comes with the package."""

import json
import sys

import numpy as np
from PIL import Image

from m2f.demo import sample


def test_demo(m2f, tmp_path):
    out = tmp_path / "demo"
    for _ in range(2):  # again, over the results of the first
        report = json.loads(m2f("demo", "-o", out, "--json").stdout)
    assert report == json.loads((out / "report.json").read_text())
    assert report["parity"]["mask_error"] <= report["parity"]["limit"]
    assert report["failed"] == 0
    for image in report["images"]:
        assert image["segments"]
        picture = Image.open(image["outputs"][0])
        original = Image.open(image["image"])
        assert picture.size == original.size
        assert not np.array_equal(np.asarray(picture), np.asarray(original.convert("RGB")))


def test_demo_for_people(m2f, tmp_path):
    text = m2f("demo", "-o", tmp_path / "demo").stdout
    names = {path.stem for path in sample().glob("*.jpg")}
    assert names
    assert all(f"{name}_overlay.png" in text for name in names)
    assert "against PyTorch: relative error" in text


def test_without_pytorch_it_says_what_to_install(refused, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    line = refused("demo", "-o", tmp_path / "demo", code=3)
    assert "pip install 'm2f-deploy[export]'" in line
    assert not (tmp_path / "demo/sample.m2f").exists()
