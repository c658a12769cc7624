import subprocess
import sys

import pytest
import typer

import m2f as package
from m2f.cli import app

VERBS = (
    *("export", "convert", "calibrate", "build", "run", "check", "eval", "compare", "bench"),
    *("inspect", "doctor", "demo", "scenes", "finetune", "train-sample"),
)


def test_the_verbs():
    assert list(typer.main.get_command(app).commands) == list(VERBS)


@pytest.mark.parametrize("verb", VERBS)
def test_help(m2f, verb):
    text = m2f(verb, "--help").stdout
    assert "Examples:" in text
    for option in ("--json", "--debug"):
        assert option in text


def test_version(m2f):
    assert m2f("--version").stdout == f"m2f {package.__version__}\n"


@pytest.mark.parametrize(
    "words",
    [
        ("unknown",),
        ("run",),
        ("doctor", "--unknown"),
        ("export", "a.pkl"),
        ("export", "a.pkl", "-o", "b", "--form", "other"),
        ("run", "b", "c.png", "-o", "d", "--task", "other"),
        ("run", "b", "c.png", "-o", "d", "--threads", "0"),
        ("run", "b", "c.png", "-o", "d", "--min-score", "2"),
    ],
)
def test_wrong_usage_is_2_and_says_how_to_get_help(m2f, words):
    result = m2f(*words, code=2)
    assert "--help" in result.stderr
    assert result.stdout == ""


def test_help_loads_no_heavy_library():
    program = """
import sys
from m2f.cli import main
sys.argv = ["m2f", "export", "--help"]
try:
    main()
except SystemExit as stop:
    assert not stop.code
heavy = {"torch", "numpy", "onnx", "onnxruntime", "PIL"} & set(sys.modules)
sys.exit(f"loaded {heavy}" if heavy else 0)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
