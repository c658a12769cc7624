"""Mask2Former from checkpoint to deployment.

``m2f.load(bundle)`` gives a session that turns images into segments. Importing the package
costs nothing: what needs more than the standard library is imported when first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from m2f.runtime.results import Prediction, Segment
    from m2f.runtime.session import Session, load

__all__ = ["Prediction", "Segment", "Session", "__version__", "load"]

__version__ = "0.1.0"

_LAZY = {
    "Prediction": "m2f.runtime.results",
    "Segment": "m2f.runtime.results",
    "Session": "m2f.runtime.session",
    "load": "m2f.runtime.session",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'm2f' has no attribute {name!r}")
    return getattr(importlib.import_module(_LAZY[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_LAZY])
