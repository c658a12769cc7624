"""TensorRT's Python module, of either kind, with our ops in its registry.

TensorRT and TensorRT for RTX have the same interface under two names. Everything that uses
one is given the module as a value, so that one code serves both, and a stand-in in tests.
"""

from __future__ import annotations

import ctypes
import importlib
import importlib.util
import platform
import sys
from pathlib import Path
from typing import Any

from m2f.errors import MissingDependency
from m2f.plugins.library import find_named

VARIABLE = "M2F_TRT_LIBRARY"
"""Environment variable: a plugin library built by hand, or "off" for none."""

LIBRARY = "libm2f_trt.so"

HOW_TO_INSTALL = {
    "tensorrt": "pip install 'm2f-deploy[gpu]', or on a Jetson use the system's Python module "
    "(python3 -m venv --system-site-packages)",
    "tensorrt-rtx": "pip install tensorrt-rtx-cu13-bindings "
    "onnxruntime-ep-nv-tensorrt-rtx-cu13",
}

_KEPT = 20
"""Messages of TensorRT's that are kept, of each kind."""

_MODULES = {
    "tensorrt": ("tensorrt",),
    "tensorrt-rtx": ("tensorrt_rtx", "tensorrt_rtx_bindings"),
}
_RTX_LIBRARIES = ("libtensorrt_rtx.so.*", "libtensorrt_onnxparser_rtx.so.*")
_RTX_WHEEL = "onnxruntime_ep_nv_tensorrt_rtx"


def load(target: str) -> Any:
    """Imports a TensorRT.

    Args:
        target: "tensorrt" or "tensorrt-rtx".

    Raises:
        MissingDependency: It is not installed, or cannot be used; says how to install it.
    """
    names = [name for name in _MODULES[target] if importlib.util.find_spec(name)]
    if not names:
        raise MissingDependency(f"{target} is not installed; run: {HOW_TO_INSTALL[target]}")
    try:
        if names[0] == "tensorrt_rtx_bindings":
            _preload()
        return importlib.import_module(names[0])
    except (ImportError, OSError) as problem:
        raise MissingDependency(
            f"{names[0]} is installed but cannot be used ({problem}); run: "
            f"{HOW_TO_INSTALL[target]}"
        ) from problem


def find_plugins() -> Path | None:
    """The library of our ops as TensorRT plugins, or None where there is none.

    Raises:
        MissingFile: The environment variable names a file that does not exist.
    """
    return find_named(LIBRARY, VARIABLE)


def load_plugins(trt: Any, library: Path) -> None:
    """Puts our ops into TensorRT's plugin registry.

    Raises:
        MissingDependency: TensorRT cannot load the library, e.g. for want of CUDA's.
    """
    try:
        handle = trt.get_plugin_registry().load_library(str(library))
    except Exception as problem:  # pybind's have no common base
        raise MissingDependency(f"{library}: cannot be loaded: {problem}") from problem
    if handle is None:
        raise MissingDependency(
            f"{library}: TensorRT {trt.__version__} cannot load this plugin library; build it "
            "on this machine (docs/gpu.md)"
        )


def make_logger(trt: Any, *, echo: bool = False) -> Any:
    """A logger for TensorRT that keeps `errors` and `warnings` as lists.

    Args:
        trt: TensorRT's module.
        echo: Also print errors to stderr, for a parent process, should this one die.
    """

    class Logger(trt.ILogger):  # type: ignore[misc]
        """Keeps what matters, each message once: it can come once per layer."""

        def __init__(self) -> None:
            super().__init__()
            self.errors: list[str] = []
            self.warnings: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            is_error = severity in (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR)
            if is_error and echo:
                print(message, file=sys.stderr, flush=True)
            if is_error or severity == trt.ILogger.WARNING:
                kept = self.errors if is_error else self.warnings
                if len(kept) < _KEPT and message not in kept:
                    kept.append(message)

    return Logger()


def system() -> str:
    """Operating system and processor, which a plan is for, e.g. "linux-x86_64"."""
    return f"{platform.system()}-{platform.machine()}".lower()


def _preload() -> None:
    """Loads RTX's libraries from the wheel that carries them, where the system has none.

    The bindings ask for them by name only; once loaded, the names are satisfied.
    """
    package = importlib.util.find_spec(_RTX_WHEEL)
    if package is None or not package.submodule_search_locations:
        return  # an SDK on the loader's path
    folder = Path(package.submodule_search_locations[0])
    for pattern in _RTX_LIBRARIES:
        for library in sorted(folder.rglob(pattern))[-1:]:
            ctypes.CDLL(str(library), ctypes.RTLD_GLOBAL)
