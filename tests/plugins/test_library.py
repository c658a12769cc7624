"""The built plugin library: compiled by nvcc, loaded by a real TensorRT registry and parser."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import onnx
import onnxruntime
import pytest

from m2f.bundle import MODEL
from m2f.export.exporter import Options
from m2f.plugins import OPS, library, trt
from tests.cuda_on_cpu.build import COMPILER
from tests.export import rtx
from tests.export.models import small
from tests.export.test_network import exported
from tests.ops.test_onnxruntime import attention
from tests.plugins import headers, registry

ROOT = Path(__file__).parents[2]
NVCC = shutil.which("nvcc", path=f"{os.environ['PATH']}:/usr/local/cuda/bin")
CMAKE = shutil.which("cmake")

pytestmark = [
    headers.needs_headers,
    pytest.mark.skipif(NVCC is None, reason="needs nvcc, from the CUDA toolkit"),
    pytest.mark.skipif(CMAKE is None, reason="needs cmake"),
]
needs_rtx = pytest.mark.skipif(
    not rtx.libraries() or not all(rtx.libraries()), reason="TensorRT for RTX is not installed"
)


def run(*command, **options):
    words = [str(word) for word in command]
    done = subprocess.run(words, capture_output=True, text=True, check=False, **options)
    return done.returncode, done.stdout + done.stderr


@pytest.fixture(scope="session")
def build_folder(tmp_path_factory):
    """Where `cmake --preset trt` builds, for one architecture."""
    folder = tmp_path_factory.mktemp("trt")
    tools = {"CMAKE_CUDA_COMPILER": NVCC, "M2F_PYTHON": sys.executable}
    options = [f"-D{key}={value}" for key, value in tools.items()]
    architecture = "-DCMAKE_CUDA_ARCHITECTURES=80-real"
    code, said = run(CMAKE, "--preset", "trt", "-B", folder, architecture, *options, cwd=ROOT)
    assert code == 0, said
    return folder


def compiled(folder, target):
    code, said = run(CMAKE, "--build", folder, "--target", target, "--parallel", "2")
    assert code == 0, said
    return folder / "plugins" / f"lib{target}.so"


@pytest.fixture(scope="session")
def built(build_folder):
    """libm2f_trt.so."""
    return compiled(build_folder, "m2f_trt")


@pytest.fixture(scope="session")
def spy(built, tmp_path_factory):
    """A library that tells what the built one creates."""
    path = tmp_path_factory.mktemp("spy") / "libspy.so"
    folders = (ROOT / "tests/cuda_on_cpu/include", ROOT / "tests/cuda_on_cpu", headers.FOLDER)
    include = (word for folder in folders for word in ("-isystem", folder))
    options = ("-std=c++17", "-fPIC", "-shared", "-fvisibility=hidden", *include)
    code, said = run(COMPILER, *options, Path(__file__).parent / "spy.cc", "-o", path, "-ldl")
    assert code == 0, said
    return path


def in_tensorrt(path, *arguments, **environment):
    return run(
        sys.executable, registry.__file__, path, *arguments, env={**os.environ, **environment}
    )


def test_it_shows_two_functions_and_needs_no_library_of_tensorrt_or_cuda(built):
    _, symbols = run("nm", "-D", "--defined-only", built)
    assert sorted(line.split()[-1] for line in symbols.splitlines()) == [
        "getCreators",
        "setLoggerFinder",
    ]
    _, needed = run("objdump", "-p", built)
    names = set(re.findall(r"NEEDED +(\S+)\.so", needed))
    assert names <= {"libc", "libm", "libdl", "librt", "libpthread", "ld-linux-x86-64"}


@needs_rtx
def test_the_registry_has_what_the_descriptions_say(built):
    code, said = in_tensorrt(built)
    assert code == 0, said
    found = json.loads(next(line for line in said.splitlines() if line.startswith("{")))
    kinds = {"int": "INT32", "ints": "INT32", "float": "FLOAT32"}
    expected = [
        [spec.name, str(spec.version), [[a.name, kinds[a.type]] for a in spec.attributes]]
        for spec in OPS
    ]
    assert sorted(found["creators"]) == sorted(expected)
    assert found["attention"] == ["MaskedAttention", "1", "m2f"]
    assert found["deformable"] == ["MSDeformAttn", "1", "m2f"]
    assert found["refused"] is None
    assert "MaskedAttention: needs the attribute heads" in said


@needs_rtx
@pytest.mark.parametrize(
    ("model", "options", "op"),
    [
        ("basic_blocks", Options(form="plugin", size=(64, 96)), "MSDeformAttn"),
        ("basic_blocks", Options(form="plugin"), "MSDeformAttn"),
        ("bottlenecks_and_plain_pyramid", Options(form="plugin"), "MaskedAttention"),
    ],
    ids=["fixed sizes", "dynamic sizes", "attention first"],
)
def test_the_parser_creates_plugins_with_the_attributes_of_the_file(
    model, options, op, built, spy, tmp_path
):
    """A file's first plugin: TensorRT for RTX ends the process where it would be added."""
    exported(small(model), tmp_path, options)
    graph = onnx.load(tmp_path / MODEL).graph
    node = next(n for n in graph.node if n.domain == "m2f")
    assert node.op_type == op
    given = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    spec = next(spec for spec in OPS if spec.name == op)
    words = [
        f"{a.name}={','.join(map(str, given[a.name])) if a.type == 'ints' else given[a.name]}"
        for a in spec.attributes
        if a.name in given
    ]
    _, said = in_tensorrt(spy, tmp_path / MODEL, M2F_SPIED=str(built))
    assert f"created {op}: {' '.join(words)}\n" in said
    assert f"Successfully created plugin: {op}" in said


def test_an_installed_library_is_found(built, tmp_path, monkeypatch):
    monkeypatch.setenv(trt.VARIABLE, str(built))
    assert trt.find_plugins() == built
    monkeypatch.delenv(trt.VARIABLE)
    shutil.copy(built, tmp_path)
    monkeypatch.setattr(library, "__file__", str(tmp_path / "library.py"))
    assert trt.find_plugins() == tmp_path / built.name
    assert library.find() is None or library.find().name != built.name


@pytest.mark.slow
def test_onnxruntime_without_a_gpu_takes_the_library_with_cuda_kernels(build_folder):
    """The ops for its CUDA provider are registered, too, and change nothing on the CPU."""
    path = compiled(build_folder, "m2f_ort")
    assert b"CUDAExecutionProvider" in path.read_bytes()
    model, inputs = attention(has_body=False)
    outputs = []
    for found in (path, library.find()):
        if found is None:
            pytest.skip("m2f has no native library here to compare with")
        options = onnxruntime.SessionOptions()
        options.register_custom_ops_library(str(found))
        session = onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        outputs.append(session.run(None, inputs)[0])
    assert (outputs[0] == outputs[1]).all()
