"""The kernels under the address and undefined-behaviour sanitizers."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from m2f.plugins import library

ROOT = Path(__file__).parents[2]
TESTS = (
    "ops/test_ms_deform_attn.py",
    "ops/test_masked_attention.py",
    "fused/test_group_norm.py",
    "fused/test_layer_norm.py",
    "fused/test_linear.py",
    "fused/test_quantize.py",
    "fused/test_window_attention.py",
    "images/test_kernels.py",
    "images/test_resize.py",
)
COMPILER = shutil.which("g++")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (COMPILER and shutil.which("cmake")), reason="needs g++ and cmake"),
    pytest.mark.skipif(sys.platform != "linux", reason="LD_PRELOAD"),
]


def run(*command, **options):
    """Returns the exit status and all that was printed."""
    done = subprocess.run(
        command, cwd=ROOT, text=True, check=False, stdout=-1, stderr=-2, **options
    )
    return done.returncode, done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    folder = tmp_path_factory.mktemp("asan")
    for command in (
        ("cmake", "--preset", "asan", "-B", str(folder), f"-DCMAKE_CXX_COMPILER={COMPILER}"),
        ("cmake", "--build", str(folder), "--parallel", "2"),
    ):
        status, output = run(*command)
        assert status == 0, output
    return folder / "plugins/libm2f_ort.so"


def sanitized(built):
    """The environment of a process that may load such a library."""
    names = ("libasan.so", "libubsan.so")
    found = (run(COMPILER, f"-print-file-name={name}")[1].strip() for name in names)
    return os.environ | {
        "LD_PRELOAD": " ".join(found),
        "ASAN_OPTIONS": "detect_leaks=0",  # Python itself keeps what it allocated
        library.VARIABLE: str(built),
    }


def test_the_kernels_have_no_undefined_behaviour(built):
    """Odd shapes, offsets far outside, NaN and infinity, several threads: all of the tests."""
    tests = [str(ROOT / "tests" / name) for name in TESTS]
    options = ("-q", "-x", "-p", "no:cacheprovider")
    status, output = run(sys.executable, "-m", "pytest", *options, *tests, env=sanitized(built))
    assert status == 0, output
    assert "skipped" not in output, output


def test_the_sanitizer_would_have_seen_it(built):
    """An output one row too short is written past its end: the process must not survive."""
    script = (
        "import numpy as np; from tests.ops.native import FAST\n"
        "real = np.full\n"
        "np.full = lambda shape, *rest: real((*shape[:-2], shape[-2] - 1, shape[-1]), *rest)\n"
        "x = np.zeros((1, 64, 32), 'f')\n"
        "FAST[0].masked_attention(x, x, x, np.zeros((1, 64, 64), 'f'), heads=1)\n"
    )
    environment = sanitized(built) | {
        "PYTHONPATH": os.pathsep.join((str(ROOT / "src"), str(ROOT)))
    }
    status, output = run(sys.executable, "-c", script, env=environment)
    assert status != 0
    assert "heap-buffer-overflow" in output, output
