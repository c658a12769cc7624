"""Which backend runs a bundle, by name and device."""

from __future__ import annotations

from pathlib import Path

from m2f.bundle import Bundle, Precision
from m2f.engine import engines
from m2f.errors import UsageError
from m2f.gpu import parse_device
from m2f.plugins import library
from m2f.runtime.backend import Backend
from m2f.runtime.backend_ort import OrtBackend
from m2f.runtime.providers import CPU, cuda, tensorrt

BACKENDS = ("onnxruntime", "onnxruntime-tensorrt", "tensorrt", "tensorrt-rtx")
"""ONNX Runtime on its own kernels; the same with its TensorRT provider; an engine that
`m2f build` made, of either TensorRT."""


def open_backend(
    bundle: Bundle,
    name: str | None = None,
    *,
    device: str | None = None,
    threads: int | None = None,
) -> Backend:
    """Opens a bundle's network.

    Args:
        bundle: It, opened.
        name: Of `BACKENDS`. Unless given, an engine where there is one and ``device`` is a
            GPU, else ONNX Runtime.
        device: "cpu", "cuda" or e.g. "cuda:1". Unless given, a GPU for engines and the CPU
            for ONNX Runtime.
        threads: CPU cores ONNX Runtime may use; all unless given.

    Raises:
        UsageError: There is no such backend, or it does not run on this device, or not this
            bundle's precision.
        MissingFile: There is no engine.
        EngineError: No engine fits this machine.
        DeviceError: There is no such GPU, or it has not enough memory.
        MissingDependency: What it needs is not installed.
    """
    if name is not None and name not in BACKENDS:
        raise UsageError(f"unknown backend {name!r}; there are {', '.join(BACKENDS)}")
    index = parse_device(device) if device is not None else None
    if name is None and index is not None and engines(bundle):
        return _engine(bundle, None, index)
    if name in (None, "onnxruntime"):
        if index is None and _base(bundle) == "bf16":
            raise UsageError(
                f"{bundle.path}: is in bf16, for which ONNX Runtime has no CPU kernels; use "
                "fp32 or fp16 there (`m2f convert`), or an engine (`m2f build`)"
            )
        providers = CPU if index is None else cuda(index)
        return OrtBackend(
            bundle.model_path,
            threads=threads,
            providers=providers,
            target=target_of(bundle),
            fused=bundle.cpu_path,
        )
    if device == "cpu":
        raise UsageError(f"{name} runs on NVIDIA GPUs only; leave --device out, or name one")
    if name == "onnxruntime-tensorrt":
        providers = tensorrt(index or 0, bundle)
        return OrtBackend(bundle.model_path, threads=threads, providers=providers)
    return _engine(bundle, name, index or 0)


def cpu_file(bundle: Bundle) -> Path:
    """The ONNX file that ONNX Runtime is given on the CPU."""
    fused = bundle.cpu_path if library.find() is not None else None
    return fused or bundle.model_path


def target_of(bundle: Bundle) -> str | None:
    """Whose kernels a quantised bundle is for; None for one that is not quantised."""
    quantization = bundle.manifest.quantization
    return quantization.target if quantization else None


def _base(bundle: Bundle) -> Precision:
    """Type of all that is not quantised."""
    manifest = bundle.manifest
    return manifest.quantization.base if manifest.quantization else manifest.precision


def _engine(bundle: Bundle, target: str | None, index: int) -> Backend:
    from m2f.runtime.backend_trt import TrtBackend
    from m2f.runtime.device import open_device
    from m2f.runtime.trt_engine import find_engine

    device = open_device(index)
    return TrtBackend(find_engine(bundle, device, target=target), device, bundle=bundle)
