"""How ONNX Runtime's GPU providers are set up; that they run needs a GPU (tests/gpu)."""

import pytest

from m2f.bundle import Bundle
from m2f.errors import DeviceError, MissingDependency
from m2f.plugins import trt as plugins
from m2f.runtime import providers
from m2f.runtime.backends import open_backend
from tests.runtime import toy


def available():
    import onnxruntime

    return onnxruntime.get_available_providers()


@pytest.fixture
def bundle(tmp_path):
    return Bundle.open(toy.write(tmp_path / "toy", batch=(1, 2), height=(32, 64)))


def test_cuda():
    (name, options), *rest = providers.cuda(1)
    assert name == "CUDAExecutionProvider"
    assert options["device_id"] == "1"
    assert options["use_tf32"] == "0"
    assert tuple(rest) == providers.CPU


def test_tensorrt(bundle, monkeypatch):
    monkeypatch.setenv(plugins.VARIABLE, "off")
    (name, options), *rest = providers.tensorrt(0, bundle)
    assert name == "TensorrtExecutionProvider"
    assert options["trt_profile_min_shapes"] == "image:1x32x1x3"
    assert options["trt_profile_max_shapes"] == "image:2x64x4096x3"
    assert options["trt_engine_cache_path"] == str(bundle.path / "engines" / "onnxruntime")
    assert "trt_extra_plugin_lib_paths" not in options
    assert "trt_fp16_enable" not in options
    assert tuple(rest) == providers.cuda(0)


def test_plugins_are_handed_over(bundle, tmp_path, monkeypatch):
    import dataclasses

    from m2f.bundle import Op

    library = tmp_path / "libm2f_trt.so"
    library.write_bytes(b"")
    monkeypatch.setenv(plugins.VARIABLE, str(library))
    ops = (Op(domain="m2f", name="MSDeformAttn", version=1),)
    manifest = dataclasses.replace(bundle.manifest, ops=ops)
    (_, options), *_ = providers.tensorrt(0, dataclasses.replace(bundle, manifest=manifest))
    assert options["trt_extra_plugin_lib_paths"] == str(library)


@pytest.mark.parametrize(
    ("backend", "device", "name"),
    [
        ("onnxruntime", "cuda", "CUDAExecutionProvider"),
        (None, "cuda:1", "CUDAExecutionProvider"),
        ("onnxruntime-tensorrt", None, "TensorrtExecutionProvider"),
    ],
)
def test_a_provider_that_is_not_installed(bundle, backend, device, name):
    if name in available():
        pytest.skip(f"{name} is installed")
    with pytest.raises(MissingDependency, match=f"no {name}.*; run: .*onnxruntime-gpu"):
        open_backend(bundle, backend, device=device)


def test_a_provider_that_cannot_start():
    """ONNX Runtime would go on with the CPU, and nobody would know why it is slow."""
    with pytest.raises(DeviceError, match="CUDAExecutionProvider could not be started"):
        providers.check_used(
            ["CUDAExecutionProvider", "CPUExecutionProvider"], ["CPUExecutionProvider"]
        )
    providers.check_used(["CPUExecutionProvider"], ["CPUExecutionProvider"])
