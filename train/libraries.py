"""What training needs beyond the rest of the program. Imports none of it."""

import importlib.util

from m2f.errors import MissingDependency

NEEDED = {"torch": "PyTorch", "scipy": "SciPy", "safetensors": "safetensors"}
"""Names for people, by module; the extra "train" of pyproject.toml."""


def require_libraries() -> None:
    """Looks for all of them, so that nothing is begun which cannot be ended.

    Raises:
        MissingDependency: Some are not installed.
    """
    missing = [name for module, name in NEEDED.items() if not _is_there(module)]
    if missing:
        raise MissingDependency(
            f"training needs {' and '.join(missing)}, not installed here; run: "
            "pip install 'm2f-deploy[train]'"
        )


def _is_there(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ValueError:  # what find_spec makes of a module that is there only in part
        return False
