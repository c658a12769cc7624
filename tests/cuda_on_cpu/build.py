"""Compiles kernels for the CPU, and calls their launchers on device memory that is watched."""

import ctypes
import enum
import functools
import hashlib
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
COMPILER = shutil.which("g++")
FINDINGS_BYTES = 1 << 16
HOST_TO_DEVICE, DEVICE_TO_HOST = 1, 2

needs_compiler = pytest.mark.skipif(COMPILER is None, reason="needs g++ on x86-64")


class Order(enum.IntEnum):
    """In which blocks, and the threads of a block, take turns."""

    FORWARD = 0
    REVERSE = 1
    SHUFFLED = 2


class Emulated:
    """A library of kernels and their launchers, compiled for the CPU.

    ``with library.device(array) as pointer`` copies an array to guarded device memory, and what
    kernels wrote there back. A call that leaves findings fails.
    """

    def __init__(self, path):
        self.path = path
        self.library = ctypes.CDLL(str(path))

    def call(self, name, *arguments, order=Order.FORWARD):
        """Calls a launcher; NumPy arrays go to the device and come back.

        Returns:
            What the emulator found, one line each.
        """
        self.library.cuda_on_cpu_set_order(int(order))
        arrays = [a for a in arguments if isinstance(a, np.ndarray)]
        pointers = {id(a): self._to_device(a) for a in arrays}
        status = getattr(self.library, name)(
            *(pointers[id(a)] if isinstance(a, np.ndarray) else a for a in arguments)
        )
        for array in arrays:
            self._from_device(array, pointers[id(array)])
        found = self._findings()
        assert status == 0 or found, f"{name} returned CUDA error {status}"
        return found

    def take_conflicts(self):
        """How often rows of an ldmatrix met in one bank since the last time."""
        take = self.library.cuda_on_cpu_take_conflicts
        take.restype = ctypes.c_uint64
        return take()

    def leave_out(self, file, line):
        """Leaves out the barrier or wait at one line of the source; line 0 puts it back."""
        self.library.cuda_on_cpu_leave_out(str(file).encode(), line)

    def _to_device(self, array):
        assert array.flags.c_contiguous
        pointer = ctypes.c_void_p()
        size = ctypes.c_size_t(array.nbytes)
        assert self.library.cudaMalloc(ctypes.byref(pointer), size) == 0
        if not getattr(array, "unwritten", False):
            source = ctypes.c_void_p(array.ctypes.data)
            assert self.library.cudaMemcpy(pointer, source, size, HOST_TO_DEVICE) == 0
        return pointer

    def _from_device(self, array, pointer):
        target = ctypes.c_void_p(array.ctypes.data)
        size = ctypes.c_size_t(array.nbytes)
        self.library.cudaMemcpy(target, pointer, size, DEVICE_TO_HOST)
        self.library.cudaFree(pointer)

    def _findings(self):
        text = ctypes.create_string_buffer(FINDINGS_BYTES)
        self.library.cuda_on_cpu_take_findings(text, ctypes.c_size_t(FINDINGS_BYTES))
        return self._with_places(text.value.decode())

    def _with_places(self, text):
        """Replaces offsets in the library by functions and lines of the source."""
        offsets = sorted(set(re.findall(r"@(0x[0-9a-f]+)", text)))
        if not offsets or shutil.which("addr2line") is None:
            return text
        command = ["addr2line", "-Csfe", str(self.path), *offsets]
        said = subprocess.run(command, capture_output=True, text=True, check=False).stdout
        lines = said.splitlines()
        names = [re.sub(r"\(anonymous namespace\)::|\([^)]*\)$", "", n) for n in lines[::2]]
        for offset, name, place in zip(offsets, names, lines[1::2], strict=True):
            text = text.replace(f"@{offset}", f"{name} ({place})")
        return text


class Unwritten(np.ndarray):
    """An array whose device copy starts as NaN that nobody has written: an output."""

    unwritten = True


def output(shape, dtype):
    """An output of a launcher: its device memory is nobody's until a kernel writes it."""
    return np.zeros(shape, dtype).view(Unwritten)


def compile_kernels(folder, *sources, checked, flags=()):
    """Compiles CUDA sources with g++ into ``folder``, once for each set of options.

    Args:
        folder: Where the library goes.
        *sources: Paths from the repository's root, .cu or .cc.
        checked: Whether every access of the kernels is watched, at a hundred times the cost.
        flags: More options of the compiler.
    """
    name = hashlib.sha256(repr((sources, checked, flags)).encode()).hexdigest()[:16]
    library = Path(folder) / f"{name}.so"
    if library.exists():
        return Emulated(library)
    objects = [*_emulator(folder, checked)]
    watch = ("-fsanitize=thread,alignment", "--param=tsan-instrument-func-entry-exit=0")
    for source in sources:
        options = (*_options(checked), *(watch if checked else ()), *flags)
        target = library.with_suffix(f".{str(source).replace('/', '.')}.o")
        _run(COMPILER, *options, "-x", "c++", "-c", ROOT / source, "-o", target)
        objects.append(target)
    # Without the sanitizer, whose entry points the emulator has itself.
    _run(COMPILER, "-shared", "-Wl,-Bsymbolic", "-o", library, *objects)
    return Emulated(library)


@functools.cache
def _emulator(folder, checked):
    """The emulator's own objects, which are never watched."""
    objects = []
    for source in sorted((HERE / "emulator").glob("*.cc")):
        target = Path(folder) / f"{source.stem}_{'checked' if checked else 'plain'}.o"
        _run(COMPILER, *_options(checked), "-c", source, "-o", target)
        objects.append(target)
    return tuple(objects)


def _options(checked):
    """-O1 keeps what the source says; contraction is what nvcc does, too."""
    return (
        "-std=c++17",
        "-Wall",
        "-Wextra",
        "-Werror",
        "-Wno-unknown-pragmas",
        "-fPIC",
        "-fvisibility=hidden",
        "-fno-gnu-unique",
        "-ffp-contract=fast",
        "-march=native",
        *(("-O1", "-g", "-DCUDA_ON_CPU_CHECKED") if checked else ("-O2",)),
        f"-I{HERE}/include",
        f"-I{HERE}",
        f"-I{ROOT}/plugins",
    )


def _run(*command):
    words = [str(word) for word in command]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, " ".join(words) + "\n" + done.stdout + done.stderr
