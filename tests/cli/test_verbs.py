"""Export, inspect and doctor: what they print, for people and for programs."""

import json

import pytest

from m2f.doctor import LIBRARIES, doctor, install_hint


def test_export(m2f, checkpoint, tmp_path):
    out = tmp_path / "small.m2f"
    words = ("--form", "portable", "--size", "96x128", "--batch", "1:2", "--external-data")
    report = json.loads(m2f("export", checkpoint, "-o", out, *words, "--json").stdout)
    manifest = report["manifest"]
    sides = {axis: tuple(ends.values()) for axis, ends in manifest["profile"].items()}
    assert sides == {"batch": (1, 2), "height": (96, 96), "width": (128, 128)}
    assert manifest["form"] == "portable"
    assert manifest["parity"]["mask_error"] <= manifest["parity"]["limit"]
    assert {file["name"] for file in manifest["files"]} == {p.name for p in out.iterdir()} - {
        "manifest.json"
    }
    assert not any("::" in op for op in report["ops"])


def test_export_says_how_near_to_pytorch_it_is(m2f, checkpoint, tmp_path):
    result = m2f("export", checkpoint, "-o", tmp_path / "a.m2f", "--size", "64")
    assert "against PyTorch: relative error" in result.stdout
    unchecked = m2f("export", checkpoint, "-o", tmp_path / "b.m2f", "--no-check")
    assert "against PyTorch: not compared" in unchecked.stdout


def test_export_replaces_only_when_told(m2f, refused, checkpoint, exported, bundle):
    words = ("export", checkpoint, "-o", bundle, "--no-check")
    assert "--overwrite" in refused(*words, code=2)
    m2f(*words, "--overwrite")


def test_inspect_checkpoint(m2f, checkpoint):
    report = json.loads(m2f("inspect", checkpoint, "--json").stdout)
    assert (report["kind"], report["format"]) == ("checkpoint", "official")
    assert report["config"]["classes"] == 3
    parameters = sum(part["parameters"] for part in report["parts"])
    # Float32 weights and their names are all that the file holds.
    assert 4 * parameters < checkpoint.stat().st_size < 4.3 * parameters
    shapes = {weight["name"]: weight["shape"] for weight in report["weights"]}
    assert shapes["transformer_decoder.class_embed.weight"] == [4, 32]


def test_inspect_lists_weights_when_asked(m2f, checkpoint):
    name = "transformer_decoder.class_embed.weight"
    assert name not in m2f("inspect", checkpoint).stdout
    assert name in m2f("inspect", checkpoint, "--weights").stdout


def test_inspect_bundle(m2f, exported):
    report = json.loads(m2f("inspect", exported, "--json").stdout)
    shapes = {port["name"]: port["shape"] for port in report["inputs"] + report["outputs"]}
    assert shapes["image"] == ["N", "H", "W", 3]
    assert shapes["class_logits"] == ["N", 5, 4]
    assert report["ops"]["m2f::MSDeformAttn"] == 1
    assert report["ops"]["m2f::MaskedAttention"] == 3
    text = m2f("inspect", exported).stdout
    for piece in ("5 queries, 3 layers", "m2f::MaskedAttention version 1", "model.onnx"):
        assert piece in text


def test_inspect_bundle_without_onnx(m2f, exported, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "onnx", None)
    assert "install onnx" in m2f("inspect", exported).stdout


def test_doctor(m2f):
    report = json.loads(m2f("doctor", "--json").stdout)
    assert {lib["name"] for lib in report["libraries"]} == {lib.name for lib in LIBRARIES}
    states = {verdict["use"]: verdict["state"] for verdict in report["verdicts"]}
    assert states["run bundles on the CPU"] == "yes"
    assert states["build and run TensorRT engines"] in ("yes", "no")
    assert {"driver", "CUDA for Python", "TensorRT plugins"} <= set(report["gpu"])
    assert report["machine"]["cores"]
    assert "can this machine" in m2f("doctor").stdout


def test_doctor_says_what_to_install(monkeypatch):
    monkeypatch.setattr("m2f.doctor._version", lambda name: None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    report = doctor()
    assert all(
        found.version is None and "pip install" in found.hint for found in report.libraries
    )
    assert {verdict.state for verdict in report.verdicts} == {"no"}


def test_doctor_survives_anything(monkeypatch):
    def fail(*args, **options):
        raise RuntimeError("broken")

    monkeypatch.setattr("platform.python_version", fail)
    monkeypatch.setattr("shutil.which", fail)
    report = doctor()
    assert {f.value for f in report.machine if f.name == "Python"} == {"unknown (broken)"}
    assert {f.value for f in report.gpu if f.name == "GPU"} == {"unknown (broken)"}


@pytest.mark.parametrize(
    ("module", "extra"),
    [("torch._C", "[export]"), ("PIL.Image", ""), ("supervision", "[super")],
)
def test_install_hint(module, extra):
    assert f"pip install 'm2f-deploy{extra}" in install_hint(module)
