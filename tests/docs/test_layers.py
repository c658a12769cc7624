"""Imports point one way, so that deployment needs neither PyTorch nor the model."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SPINE = {"config", "errors", "bundle", "files", "engine", "gpu"}
# Modules of src/m2f beside the spine put the folders together, and may import all of them.
APPLICATION = {"__init__", "__main__", "cli", "demo", "doctor", "inspect", "run"}
MAY_IMPORT = {
    "models": {"models"},
    "plugins": {"plugins"},
    "export": {"export", "models", "plugins"},
    "train": {"train", "calib", "evaluate", "export", "models", "runtime"},
    "runtime": {"runtime", "plugins"},
    "evaluate": {"evaluate", "export", "models", "plugins", "runtime"},
    "calib": {"calib", "evaluate", "export", "plugins", "runtime"},
    "bench": {"bench", "export", "models", "plugins", "runtime"},
}
WITHOUT_TORCH = ("runtime", "plugins", "src/m2f")
TORCH_FILES = {"runtime/backend_torch.py"}  # optional, and needs the model too


def imports(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import; write from m2f...."
            yield node.module
            if node.module == "m2f":
                yield from (f"m2f.{alias.name}" for alias in node.names)


def parts_imported(path):
    """First components below m2f, e.g. {"config", "models"}."""
    modules = (module.split(".") for module in imports(path))
    return {m[1] for m in modules if m[0] == "m2f" and len(m) > 1} - {"__version__"}


def files(folder):
    return sorted((ROOT / folder).rglob("*.py"))


def name(path):
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("folder", MAY_IMPORT)
def test_folders_import_only_what_is_below_them(folder):
    if not (ROOT / folder).is_dir():
        pytest.skip(f"no folder {folder} yet")
    allowed = MAY_IMPORT[folder] | SPINE
    extra = {name(p): parts_imported(p) - allowed for p in files(folder)}
    assert {k: v for k, v in extra.items() if v and k not in TORCH_FILES} == {}


def test_the_spine_imports_only_itself():
    for module in SPINE:
        assert parts_imported(ROOT / f"src/m2f/{module}.py") <= SPINE


def test_every_module_beside_the_folders_is_known():
    found = {p.stem for p in (ROOT / "src/m2f").iterdir() if not p.is_symlink()} - {"py"}
    assert found - {"__pycache__"} == SPINE | APPLICATION


def test_torch_is_imported_where_models_are_and_nowhere_else():
    with_torch = {
        name(path)
        for folder in WITHOUT_TORCH
        for path in files(folder)
        if any(module.split(".")[0] == "torch" for module in imports(path))
    }
    assert with_torch <= TORCH_FILES
