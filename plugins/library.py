"""Where the native library is: the ops' CPU kernels, with adapters for ONNX Runtime and C.

It is built when m2f is installed on a machine that has a C++ compiler, and is optional: the
exported files carry the meaning of each op in standard ONNX, too.
"""

import ctypes
import os
import sys
import sysconfig
from pathlib import Path

from m2f.errors import MissingFile

VARIABLE = "M2F_ORT_LIBRARY"
"""Environment variable: a library built by hand, or "off" for none."""

HINT = "install g++ or clang++ and reinstall m2f to get the native kernels"

_NAME = "libm2f_ort.dylib" if sys.platform == "darwin" else "libm2f_ort.so"


def find() -> Path | None:
    """The library, or None where there is none.

    Raises:
        MissingFile: The environment variable names a file that does not exist.
    """
    return find_named(_NAME, VARIABLE)


def find_named(name: str, variable: str) -> Path | None:
    """A library that the install built, or the one that a variable names.

    Args:
        name: Of the file.
        variable: Environment variable: another file, or "off" for none.

    Raises:
        MissingFile: The environment variable names a file that does not exist.
    """
    given = os.environ.get(variable, "")
    if given == "off":
        return None
    if given:
        if not Path(given).is_file():
            raise MissingFile(f'{variable}: {given} is no file; unset it, or say "off"')
        return Path(given).resolve()
    # An editable install leaves the sources where they are and puts what it builds here.
    installed = Path(sysconfig.get_path("platlib")) / "m2f" / "plugins"
    folders = (Path(__file__).parent, installed)
    return next((f / name for f in folders if (f / name).is_file()), None)


def instruction_set(library: Path) -> str:
    """Name of the kernels that this machine runs, "avx2" for one.

    Raises:
        OSError: The file cannot be loaded here.
    """
    name = ctypes.CDLL(str(library)).m2f_kernels
    name.restype = ctypes.c_char_p
    return bytes(name(0)).decode()
