"""What this machine can do with m2f, and what to install for the rest. Never fails."""

from __future__ import annotations

import ctypes
import importlib
import importlib.metadata
import importlib.util
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from m2f.config import json_from_config

DISTRIBUTION = "m2f-deploy"

State = Literal["yes", "no"]

_NONE = "none found"
_RUN = ("GPU", "driver", "CUDA for Python")


@dataclass(frozen=True, slots=True)
class Library:
    """An optional library.

    Attributes:
        name: Of its distribution.
        module: What is imported.
        extra: The extra of this package that brings it; "" where each install does.
        use: What it is for.
    """

    name: str
    module: str
    extra: str
    use: str

    @property
    def install(self) -> str:
        """The command that brings it."""
        extra = f"[{self.extra}]" if self.extra else ""
        return f"pip install '{DISTRIBUTION}{extra}'"


LIBRARIES = (
    Library("numpy", "numpy", "", "arrays"),
    Library("pillow", "PIL", "", "images in, pictures out"),
    Library("onnxruntime", "onnxruntime", "", "running bundles"),
    Library("pycocotools", "pycocotools", "", "COCO results"),
    Library("torch", "torch", "export", "the reference model, export, check"),
    Library("onnx", "onnx", "export", "export"),
    Library("safetensors", "safetensors", "export", "Hugging Face checkpoints"),
    Library("huggingface_hub", "huggingface_hub", "export", "checkpoints by hub id"),
    Library("supervision", "supervision", "supervision", "annotators, trackers, zones"),
    Library("scipy", "scipy", "train", "training"),
    Library("matplotlib", "matplotlib", "bench", "plots of benchmarks"),
    Library("transformers", "transformers", "bench", "comparing speed with it"),
    Library("onnxscript", "onnxscript", "bench", "comparing speed with its export"),
    Library("openvino", "openvino", "bench", "comparing speed with it"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    """One thing found out about the machine."""

    name: str
    value: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """Whether one library is there.

    Attributes:
        version: None where it is not installed.
        hint: What to do where it is not.
    """

    name: str
    use: str
    version: str | None
    hint: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Whether the machine can be used for something.

    Attributes:
        why: What it rests on, or what to do to change it.
    """

    use: str
    state: State
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DoctorReport:
    """All that was found out."""

    machine: tuple[Fact, ...]
    libraries: tuple[Found, ...]
    gpu: tuple[Fact, ...]
    verdicts: tuple[Verdict, ...]

    def to_json(self) -> dict[str, Any]:
        """Ready for ``json.dump``."""
        report: dict[str, Any] = json_from_config(self)
        for part in ("machine", "gpu"):
            report[part] = {fact["name"]: fact["value"] for fact in report[part]}
        return report


def doctor() -> DoctorReport:
    """Looks at the machine; changes nothing and needs nothing."""
    libraries = tuple(_find(library) for library in LIBRARIES)
    gpu = tuple(_facts(_GPU))
    return DoctorReport(
        machine=tuple(_facts(_MACHINE)),
        libraries=libraries,
        gpu=gpu,
        verdicts=tuple(_verdicts({f.name for f in libraries if f.version}, gpu)),
    )


def install_hint(module: str) -> str | None:
    """How to install an optional library, by the module whose import failed."""
    for library in LIBRARIES:
        if library.module == module.partition(".")[0]:
            return f"{library.name} is not installed; run: {library.install}"
    return None


def _find(library: Library) -> Found:
    version = _version(library.name)
    hint = ""
    if version is None and importlib.util.find_spec(library.module):
        version = "from another distribution"  # onnxruntime-gpu brings onnxruntime
    if version is None:
        hint = library.install
    elif not library.extra:
        # What each run imports must really import. The rest would take seconds to try.
        try:
            importlib.import_module(library.module)
        except Exception as problem:
            hint = f"{version} is installed but cannot be imported: {problem}"
            version = None
    return Found(name=library.name, use=library.use, version=version, hint=hint)


def _verdicts(found: set[str], gpu: Iterable[Fact]) -> Iterable[Verdict]:
    def needs(use: str, *names: str) -> Verdict:
        missing = [lib for lib in LIBRARIES if lib.name in names and lib.name not in found]
        if not missing:
            return Verdict(use=use, state="yes", why=f"with {', '.join(names)}")
        return Verdict(use=use, state="no", why=f"run: {missing[0].install}")

    yield needs("run bundles on the CPU", "onnxruntime", "numpy", "pillow")
    yield _native(found)
    yield needs("read and export checkpoints", "torch", "onnx", "safetensors")
    yield needs("check bundles against PyTorch", "torch", "onnxruntime")
    yield needs("use supervision's annotators", "supervision")
    yield from _gpu_verdicts({fact.name: fact.value for fact in gpu})


def _gpu_verdicts(gpu: Mapping[str, str]) -> Iterable[Verdict]:
    """What can be built and run; the first thing that is missing is what to see to."""
    from m2f.plugins.trt import HOW_TO_INSTALL

    def verdict(use: str, *needs: str) -> Verdict:
        missing = [name for name in needs if gpu[name] == _NONE]
        if missing:
            how = hints.get(missing[0], "")
            return Verdict(use=use, state="no", why=f"no {missing[0]} was found{how}")
        return Verdict(use=use, state="yes", why=", ".join(gpu[name] for name in needs))

    hints = {
        "TensorRT": f"; run: {HOW_TO_INSTALL['tensorrt']}",
        "TensorRT for RTX": f"; run: {HOW_TO_INSTALL['tensorrt-rtx']}",
        "CUDA for Python": f"; run: pip install '{DISTRIBUTION}[gpu]'",
        "driver": "; install NVIDIA's",
    }
    yield verdict("build engines for RTX GPUs, without one", "TensorRT for RTX")
    yield verdict("build and run TensorRT engines", *_RUN, "TensorRT")
    yield verdict("run engines for RTX GPUs", *_RUN, "TensorRT for RTX")


def _native(found: set[str]) -> Verdict:
    """Whether the custom ops have kernels here."""
    use = "run the custom ops natively on the CPU"
    if "onnxruntime" not in found:
        return Verdict(use=use, state="no", why="onnxruntime is not installed")
    try:
        from m2f.plugins import library

        path = library.find()
        if path is None:
            return Verdict(use=use, state="no", why=library.HINT)
        why = f"with {library.instruction_set(path)} kernels, {path}"
        return Verdict(use=use, state="yes", why=why)
    except Exception as problem:  # a damaged file is a finding too
        return Verdict(use=use, state="no", why=str(problem))


def _facts(probes: Iterable[tuple[str, Callable[[], str]]]) -> Iterable[Fact]:
    for name, probe in probes:
        try:
            value = probe()
        except Exception as problem:  # a probe may meet anything; that is a finding too
            value = f"unknown ({problem})"
        yield Fact(name=name, value=value)


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def _m2f() -> str:
    from m2f import __version__

    return f"{__version__}, {Path(__file__).parent}"


def _python() -> str:
    return f"{platform.python_version()}, {sys.executable}"


def _system() -> str:
    system = f"{platform.system()} {platform.release()} {platform.machine()}"
    try:
        name = platform.freedesktop_os_release().get("PRETTY_NAME", "")
    except OSError:
        return system
    return f"{name}, {system}"


def _cpu() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    fields: dict[str, str] = {}
    for line in lines:
        key, _, value = line.partition(":")
        fields.setdefault(key.strip(), value.strip())
    flags = set(fields.get("flags", fields.get("Features", "")).split())
    known = ("avx2", "fma", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_bf16")
    arm = ("asimd", "asimddp", "fphp", "i8mm", "bf16", "sve")
    having = " ".join(flag for flag in known + arm if flag in flags)
    return f"{fields.get('model name', platform.processor())}: {having or 'plain'}"


def _cores() -> str:
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None
    total = os.cpu_count()
    return f"{usable} of {total} usable" if usable not in (None, total) else str(total)


def _memory() -> str:
    text = Path("/proc/meminfo").read_text()
    size = {k: int(v) for k, v in re.findall(r"^(\w+):\s+(\d+) kB", text, re.MULTILINE)}
    return f"{size['MemTotal'] / 2**20:.1f} GiB, {size['MemAvailable'] / 2**20:.1f} GiB free"


def _disk() -> str:
    return f"{shutil.disk_usage('.').free / 2**30:.1f} GiB free in this folder"


def _gpus() -> str:
    """Asks the driver's own tool; a Jetson, which has none, is known by its device tree."""
    model = Path("/proc/device-tree/model")
    if model.exists():
        name = model.read_text(errors="replace").strip("\0 \n")
        if "jetson" in name.lower() or "orin" in name.lower() or "thor" in name.lower():
            return name
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return _NONE
    query = "--query-gpu=name,compute_cap,memory.total"
    answer = subprocess.run(
        [tool, query, "--format=csv,noheader"], capture_output=True, text=True, timeout=10
    )
    names = [line.strip() for line in answer.stdout.splitlines() if line.strip()]
    return "; ".join(names) if answer.returncode == 0 and names else _NONE


def _driver() -> str:
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return _NONE
    version = ctypes.c_int(0)
    if driver.cuDriverGetVersion(ctypes.byref(version)) != 0:
        return "found, but gives no version"
    return f"CUDA {version.value // 1000}.{version.value % 1000 // 10}"


def _tensorrt() -> str:
    return _installed("tensorrt", "tensorrt-cu12", "tensorrt-cu13") or _on_disk("nvinfer")


def _tensorrt_rtx() -> str:
    names = ("tensorrt-rtx", "tensorrt-rtx-cu12-bindings", "tensorrt-rtx-cu13-bindings")
    return _installed(*names) or _on_disk("tensorrt_rtx")


def _cuda_python() -> str:
    return _installed("cuda-python", "cuda-bindings", "pycuda") or _NONE


def _plugins() -> str:
    from m2f.plugins.trt import find_plugins

    found = find_plugins()
    return _NONE if found is None else str(found)


def _installed(*distributions: str) -> str | None:
    versions = {name: _version(name) for name in distributions}
    return next((f"{name} {v}" for name, v in versions.items() if v), None)


def _on_disk(library: str) -> str:
    """Looks where the loader would, without loading: a library may start a driver."""
    folders = os.environ.get("LD_LIBRARY_PATH", "").split(os.pathsep)
    folders += ["/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/local/lib"]
    for folder in filter(None, folders):
        for file in sorted(Path(folder).glob(f"lib{library}.so*")):
            return str(file)
    return _NONE


def _providers() -> str:
    import onnxruntime  # type: ignore[import-untyped]

    return ", ".join(onnxruntime.get_available_providers())


_MACHINE: tuple[tuple[str, Callable[[], str]], ...] = (
    ("m2f", _m2f),
    ("Python", _python),
    ("system", _system),
    ("CPU", _cpu),
    ("cores", _cores),
    ("memory", _memory),
    ("disk", _disk),
    ("ONNX Runtime providers", _providers),
)
_GPU: tuple[tuple[str, Callable[[], str]], ...] = (
    ("GPU", _gpus),
    ("driver", _driver),
    ("TensorRT", _tensorrt),
    ("TensorRT for RTX", _tensorrt_rtx),
    ("CUDA for Python", _cuda_python),
    ("TensorRT plugins", _plugins),
)
