"""What is installed: everything that is needed, under one name, and without PyTorch."""

import json
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = ("models", "export", "plugins", "runtime", "train", "evaluate", "calib", "bench")
PYTHONS = ("3.10", "3.13")  # the ends of the supported range

pytestmark = pytest.mark.slow


def run(*command, env=os.environ, **options):
    """A program's output; it finds the installed m2f, whatever PYTHONPATH says here."""
    done = subprocess.run(
        [str(word) for word in command],
        capture_output=True,
        text=True,
        check=False,
        env={name: value for name, value in env.items() if name != "PYTHONPATH"},
        **options,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="session")
def sources(tmp_path_factory):
    """A copy of the tree as git knows it, so that nothing ignored gets in or in the way."""
    copy = tmp_path_factory.mktemp("sources")
    names = run("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", cwd=ROOT)
    for name in filter(None, names.split("\0")):
        if name.startswith("tests/") or not os.path.lexists(ROOT / name):
            continue
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, copy / name, follow_symlinks=False)
    return copy


@pytest.fixture(scope="session")
def wheel(sources, tmp_path_factory):
    out = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "build", "--outdir", out, sources)  # sdist, then wheel from it
    (file,) = out.glob("*.whl")
    return file


@pytest.fixture(scope="session")
def names(wheel):
    with zipfile.ZipFile(wheel) as archive:
        return [name for name in archive.namelist() if not name.endswith("/")]


def data_files(folder):
    """What git keeps of a folder, with the links of src/m2f followed."""
    listed = run("git", "ls-files", "--cached", folder, cwd=ROOT).split("\n")
    return {f"m2f/{name.removeprefix('src/m2f/')}" for name in filter(None, listed)}


def test_the_wheel_claims_only_m2f(names):
    assert {name.partition("/")[0].partition("-")[0] for name in names} == {"m2f", "m2f_deploy"}


@pytest.mark.parametrize("folder", ["src/m2f", *FOLDERS])
def test_the_wheel_holds_every_file(names, folder):
    links = {f"m2f/{name}" for name in FOLDERS}
    native = (".cc", ".cu", ".cuh", ".h", ".cmake", "CMakeLists.txt")
    wanted = {name for name in data_files(folder) - links if not name.endswith(native)}
    assert wanted <= set(names)


def test_the_wheel_holds_the_data(names):
    assert "m2f/py.typed" in names
    assert any(name.endswith("/op.toml") for name in names)
    assert any(name.startswith("m2f/models/categories/") for name in names)
    assert len(names) == len(set(names))


@pytest.fixture(scope="session")
def has_compiler():
    return any(map(shutil.which, ("c++", "g++", "clang++")))


def test_the_wheel_holds_the_native_library_where_it_can_be_built(names, has_compiler):
    assert ("m2f/plugins/libm2f_ort.so" in names) == has_compiler


def test_without_a_compiler_it_is_pure_python(sources, tmp_path):
    """The library is optional: an install must not fail for want of g++."""
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in ("cmake", "ninja", "make", "sh", "uname"):
        if path := shutil.which(name):
            (tools / name).symlink_to(path)
    said = run(
        *(sys.executable, "-m", "build", "--wheel", "--outdir", tmp_path, sources),
        env={k: v for k, v in os.environ.items() if k not in ("CC", "CXX")} | {"PATH": tools},
    )
    assert "no C++ compiler found" in said
    (file,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(file) as archive:
        inside = archive.namelist()
    assert "m2f/plugins/library.py" in inside
    assert not [name for name in inside if name.endswith(".so")]


def test_the_source_distribution_holds_each_file_once(wheel):
    (file,) = wheel.parent.glob("*.tar.gz")
    with tarfile.open(file) as archive:
        parts = {name.split("/")[1] for name in archive.getnames() if name.count("/") > 1}
    assert "src" in parts
    assert parts.isdisjoint(FOLDERS)


def interpreter(version):
    """A Python of this version: on the path, beside this one, or installed by pyenv."""
    if version == f"{sys.version_info[0]}.{sys.version_info[1]}":
        return sys.executable
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    found = sorted(pyenv.glob(f"{version}.*/bin/python"))
    candidates = [*map(str, found), shutil.which(f"python{version}")]
    for path in filter(None, candidates):
        probe = [path, "-c", "import sys, venv; print(sys.version_info[:2])"]
        done = subprocess.run(probe, capture_output=True, text=True, check=False)
        if done.stdout.strip() == str(tuple(map(int, version.split(".")))):
            return path
    pytest.skip(f"no Python {version} on this machine")


IMPORTS = """
import json, sys
import m2f, m2f.run, m2f.runtime.session, m2f.bundle
from m2f.plugins import OPS, library
from m2f.models.presets import PRESETS
import importlib.util as find
print(json.dumps({
    "ops": len(OPS), "presets": len(PRESETS), "where": m2f.__file__,
    "torch": "torch" in sys.modules,
    "library": str(library.find()),
    "kernels": library.find() and library.instruction_set(library.find()),
    "claimed": [n for n in ("models", "runtime", "export", "plugins") if find.find_spec(n)],
}))
"""


@pytest.mark.parametrize("version", PYTHONS)
def test_it_works_where_only_bundles_run(wheel, tmp_path, version, has_compiler):
    """A fresh environment of that Python, without PyTorch, outside the tree."""
    python = tmp_path / "venv/bin/python"
    run(interpreter(version), "-m", "venv", tmp_path / "venv")
    pip = (python, "-m", "pip", "install", "-qq")
    run(*pip, "--constraint", ROOT / "constraints.txt", wheel, cwd=tmp_path)

    found = json.loads(run(python, "-c", IMPORTS, cwd=tmp_path))
    assert found["where"].startswith(str(tmp_path))
    assert (found["ops"], found["torch"], found["claimed"]) == (2, False, [])
    assert found["presets"] > 0
    if has_compiler:
        assert found["library"].startswith(str(tmp_path))
        assert found["kernels"]

    m2f = python.with_name("m2f")
    assert "export" in run(m2f, "--help", cwd=tmp_path)
    report = json.loads(run(m2f, "doctor", "--json", cwd=tmp_path))
    states = {verdict["use"]: verdict["state"] for verdict in report["verdicts"]}
    assert states["run bundles on the CPU"] == "yes"
    assert states["read and export checkpoints"] == "no"


def test_an_editable_install_sees_the_tree(sources, tmp_path, has_compiler):
    python = tmp_path / "venv/bin/python"
    run(sys.executable, "-m", "venv", tmp_path / "venv")
    run(python, "-m", "pip", "install", "-qq", "--no-deps", "--editable", sources)
    probe = "import m2f.models, m2f.errors; print(m2f.errors.__file__)"
    assert run(python, "-c", probe, cwd=tmp_path).strip() == str(sources / "src/m2f/errors.py")
    probe = "from m2f.plugins import library; print(library.find())"
    library = run(python, "-c", probe, cwd=tmp_path).strip()
    assert library.startswith(str(tmp_path / "venv")) == has_compiler
