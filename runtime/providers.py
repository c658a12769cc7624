"""ONNX Runtime's execution providers, and how each is set up for a bundle."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from m2f.bundle import Bundle, InputProfile
from m2f.engine import FOLDER, default_sizes
from m2f.errors import DeviceError, MissingDependency
from m2f.plugins.trt import find_plugins

Provider = tuple[str, Mapping[str, str]]
"""Its name and its options; see "Execution Providers" in ONNX Runtime's documentation."""

CPU: tuple[Provider, ...] = (("CPUExecutionProvider", {}),)

_INSTALL = {
    "CUDAExecutionProvider": "pip uninstall onnxruntime; pip install onnxruntime-gpu",
    "TensorrtExecutionProvider": "pip uninstall onnxruntime; pip install onnxruntime-gpu "
    "tensorrt",
}


def cuda(index: int) -> tuple[Provider, ...]:
    """CUDA, and the CPU for what it does not have.

    Float32 stays float32: rounding products to TF32 is off, which it is not by default.
    """
    options = {"device_id": str(index), "use_tf32": "0", "cudnn_conv_use_max_workspace": "1"}
    return (("CUDAExecutionProvider", options), *CPU)


def tensorrt(index: int, bundle: Bundle) -> tuple[Provider, ...]:
    """TensorRT, which keeps its engines in the bundle; then CUDA, then the CPU.

    The nodes of our ops run as TensorRT plugins where the library is installed, and as the
    functions in the file elsewhere.
    """
    cache = str(bundle.path / FOLDER / "onnxruntime")
    options = {
        "device_id": str(index),
        "trt_engine_cache_enable": "1",
        "trt_engine_cache_path": cache,
        "trt_timing_cache_enable": "1",
        "trt_timing_cache_path": cache,
        **_precision(bundle.manifest.precision),
        **_profile(bundle.manifest.profile),
    }
    library = find_plugins()
    if library is not None and bundle.manifest.ops:
        options["trt_extra_plugin_lib_paths"] = str(library)
    return (("TensorrtExecutionProvider", options), *cuda(index))


def check_available(wanted: Sequence[str], available: Sequence[str]) -> None:
    """Compares providers with what this ONNX Runtime was built with.

    Raises:
        MissingDependency: One is not among them; says what to install.
    """
    absent = [name for name in wanted if name not in available]
    if absent:
        hint = _INSTALL.get(absent[0])
        raise MissingDependency(
            f"this ONNX Runtime has no {', '.join(absent)}, only {', '.join(available)}"
            + (f"; run: {hint}" if hint else "")
        )


def check_used(wanted: Sequence[str], used: Sequence[str]) -> None:
    """ONNX Runtime goes on without a provider that fails to start; we do not.

    Raises:
        DeviceError: The preferred provider is not in use.
    """
    if wanted[0] not in used:
        raise DeviceError(
            f"{wanted[0]} could not be started, ONNX Runtime would use {', '.join(used)} "
            "instead; see `m2f doctor` for the driver and the versions of CUDA and cuDNN"
        )


def _precision(precision: str) -> dict[str, str]:
    """Which types TensorRT 10 may use in ONNX Runtime, beside what the file says."""
    flags = {"fp16": "trt_fp16_enable", "bf16": "trt_bf16_enable", "int8": "trt_int8_enable"}
    found = {flags[precision]: "1"} if precision in flags else {}
    if precision == "int8":
        found["trt_fp16_enable"] = "1"
    return found


def _profile(profile: InputProfile) -> dict[str, str]:
    """Sizes, where they are not fixed: one engine for all of them."""
    sizes = default_sizes(profile)
    if sizes.is_fixed:
        return {}
    extents = {"min": sizes.min, "opt": sizes.opt, "max": sizes.max}
    return {
        f"trt_profile_{name}_shapes": "image:" + "x".join(map(str, (*extent, 3)))
        for name, extent in extents.items()
    }
