"""The one library in old versions of ONNX Runtime, each in an environment of its own."""

import json
import subprocess
import sys

import numpy as np
import pytest
from onnx import helper

from m2f.plugins import MS_DEFORM_ATTN
from tests.fused import test_linear
from tests.ops.native import PATH, needs_library
from tests.ops.test_onnxruntime import CASES, deformable, session, typed

pytestmark = [needs_library, pytest.mark.slow]

# Runs models of a folder, in an environment that has nothing but ONNX Runtime and NumPy.
SCRIPT = """
import json, pathlib, sys
import numpy, onnxruntime
assert onnxruntime.__version__ == sys.argv[3]
for model in sorted(pathlib.Path(sys.argv[2]).glob(sys.argv[4])):
    options = onnxruntime.SessionOptions()
    options.register_custom_ops_library(sys.argv[1])
    session = onnxruntime.InferenceSession(str(model), options, ["CPUExecutionProvider"])
    arrays = dict(numpy.load(model.with_suffix(".npz")))
    expected = arrays.pop("expected")
    found = session.run(None, arrays)[0]
    print(json.dumps([model.stem, bool((found == expected).all())]))
"""


def models():
    """Name, model and inputs; float32 first, which is all that 1.17 can tell apart."""
    for name, make in CASES.items():
        yield name, *make()
    for constant in (True, False):
        arrays = test_linear.Case(24, 40, 70, residual=constant).arrays
        options = {"activation": "gelu", "constant": constant, "lead": (2, 12)}
        yield f"linear_{constant}", *test_linear.model_of(arrays, **options)
    for signature in MS_DEFORM_ATTN.signatures()[1:]:
        model, inputs = deformable(is_fixed=False, has_body=False)
        if signature["V"] == "int8":
            inputs["value"] = np.rint(inputs["value"] * 32)
            scale = helper.make_attribute("value_scale", 0.03)
            model.graph.node[0].attribute.append(scale)
        name = "typed_" + "_".join(signature.values())
        yield name, typed(model, MS_DEFORM_ATTN, signature), inputs


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A folder of models, with their inputs and what this process's ONNX Runtime gives."""
    folder = tmp_path_factory.mktemp("models")
    for name, model, inputs in models():
        place = folder / ("typed" if name.startswith("typed") else "float32") / name
        place.parent.mkdir(exist_ok=True)
        place.with_suffix(".onnx").write_bytes(model.SerializeToString())
        expected = session(model).run(None, inputs)[0]
        np.savez(place.with_suffix(".npz"), expected=expected, **inputs)
    return folder


@pytest.fixture(scope="module")
def python(tmp_path_factory):
    folder = tmp_path_factory.mktemp("old")
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    return folder / "bin" / "python"


@pytest.mark.skipif(sys.version_info >= (3, 13), reason="these have no wheels for Python 3.13")
@pytest.mark.parametrize(("version", "has_types"), [("1.17.3", False), ("1.18.1", True)])
def test_old_versions_give_the_same_bits(version, has_types, python, written):
    install = (python, "-m", "pip", "install", "-qq", f"onnxruntime=={version}", "numpy<2")
    done = subprocess.run(install, text=True, capture_output=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"onnxruntime {version} cannot be installed: {done.stderr[-200:]}")
    pattern = "*/*.onnx" if has_types else "float32/*.onnx"
    command = (python, "-c", SCRIPT, PATH, written, version, pattern)
    done = subprocess.run(command, text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    results = dict(map(json.loads, done.stdout.splitlines()))
    assert len(results) == len(CASES) + 2 + has_types * 5
    assert all(results.values()), results
