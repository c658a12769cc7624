"""The kernels of 64-bit Arm, cross-compiled and emulated."""

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
COMPILER = shutil.which("aarch64-linux-gnu-g++")
EMULATOR = shutil.which("qemu-aarch64")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not (COMPILER and EMULATOR and shutil.which("cmake")),
        reason="needs cmake, g++-aarch64-linux-gnu and qemu-user",
    ),
]


def run(*command):
    done = subprocess.run(
        [str(word) for word in command], cwd=ROOT, text=True, check=False, stdout=-1, stderr=-2
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def test_the_kernels_equal_the_plain_loops(tmp_path):
    cross = (
        "-DCMAKE_SYSTEM_NAME=Linux",
        "-DCMAKE_SYSTEM_PROCESSOR=aarch64",
        f"-DCMAKE_CXX_COMPILER={COMPILER}",
    )
    run("cmake", "--preset", "cpu", "-B", tmp_path / "build", *cross)
    run("cmake", "--build", tmp_path / "build", "--parallel", "2")
    libraries = tmp_path / "build/plugins"
    for folder in ("ops", "fused", "images"):
        program, source = tmp_path / folder, ROOT / "tests" / folder / "self_check.cc"
        link = ("-I", ROOT / "plugins", f"-L{libraries}", "-lm2f_ort")
        run(COMPILER, "-std=c++17", source, "-o", program, *link)
        emulated = (EMULATOR, "-L", "/usr/aarch64-linux-gnu")
        said = run(*emulated, "-E", f"LD_LIBRARY_PATH={libraries}", program)
        assert said.strip() == "vector128"
