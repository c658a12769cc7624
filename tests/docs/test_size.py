"""Files and functions stay short enough to read; the limits are CONTRIBUTING's."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = (
    *("src/m2f", "models", "export", "plugins", "runtime", "train", "evaluate", "calib"),
    "bench",
    "tests",
)
FILE_LINES = 400
FUNCTION_LINES = 60
TEST_LINES = 45

# path, or path:function -> why it is longer
LONGER: dict[str, str] = {}

FILES = sorted(
    path
    for folder in FOLDERS
    for path in (ROOT / folder).rglob("*.py")
    if not (ROOT / folder).is_symlink()
)


def lines(node):
    """Lines of a function's body: signature and docstring may be as long as they need."""
    has_docstring = isinstance(node.body[0], ast.Expr) and isinstance(
        node.body[0].value, ast.Constant
    )
    body = node.body[1:] if has_docstring else node.body
    return node.end_lineno - body[0].lineno + 1 if body else 0


def excess(path):
    name = path.relative_to(ROOT).as_posix()
    text = path.read_text(encoding="utf-8")
    if len(text.splitlines()) > FILE_LINES:
        yield name, len(text.splitlines())
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            limit = TEST_LINES if node.name.startswith("test_") else FUNCTION_LINES
            if lines(node) > limit:
                yield f"{name}:{node.name}", lines(node)


def test_there_is_something_to_check():
    assert len(FILES) > 30


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_size(path):
    assert {k: n for k, n in excess(path) if k not in LONGER} == {}


def test_no_exception_is_left_over():
    needed = {key for path in FILES for key, _ in excess(path)}
    assert set(LONGER) <= needed
